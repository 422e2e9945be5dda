#!/usr/bin/env python3
"""account_client.py ENDPOINT COMMAND …: Microsoft's own client (PyPI azure-storage-blob) on an account of the emulator.

  sas RIGHTS                            an account SAS
  list CONTAINER                        one JSON line a blob
  put CONTAINER NAME FILE [k=v …]       uploads a file; k=v: metadata, and type=, md5=, kind=, tier=, snapshot=1
  get CONTAINER NAME FILE               downloads it
  batch FILE                            uploads what a JSON list says, each {"container", "name", "file", and what it wants:
                                        "kind", "type", "cache", "metadata", "block" (length of its blocks, or a list of
                                        them), "times" (the file is one block, listed so often), "ranges" (of a page blob:
                                        [offset, length]), "snapshot" and "lease" (true)}
  many CONTAINER COUNT                  small blobs named blob-0000000 and so on
  read CONTAINER                        one JSON line a blob: all that can be read of it, its content as SHA-256
  stage CONTAINER NAME ID FILE          sends a block, whose id is in base64, and commits nothing
  lease CONTAINER NAME                  takes a lease without end

Exit 3: no judge here.
"""
import base64
import datetime
import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor

try:
    from azure.storage import blob as azure
except ImportError:
    print("no Python package azure-storage-blob")
    sys.exit(3)

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
endpoint, command, words = sys.argv[1], sys.argv[2], sys.argv[3:]
# What this client speaks by itself is newer than the emulator.
service = azure.BlobServiceClient(endpoint, credential=KEY, api_version="2026-06-06")


def container(name):
    client = service.get_container_client(name)
    if not client.exists():
        client.create_container()
    return client


if command == "sas":
    rights = azure.AccountSasPermissions.from_string(words[0])
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=2)
    kinds = azure.ResourceTypes(service=True, container=True, object=True)
    account = endpoint.rstrip("/").rsplit("/", 1)[-1]
    print(azure.generate_account_sas(account, KEY, kinds, rights, until, services=azure.Services(blob=True))
          if hasattr(azure, "Services") else azure.generate_account_sas(account, KEY, kinds, rights, until))
elif command == "list":
    for one in service.get_container_client(words[0]).list_blobs(include=["metadata", "snapshots"]):
        settings = one.content_settings
        md5 = settings.content_md5 and base64.b64encode(bytes(settings.content_md5)).decode()
        print(json.dumps({"name": one.name, "length": one.size, "kind": one.blob_type, "md5": md5, "snapshot": one.snapshot,
                          "type": settings.content_type, "metadata": one.metadata, "tier": one.blob_tier}))
elif command == "put":
    options = dict(word.split("=", 1) for word in words[3:])
    kind = {"page": azure.BlobType.PAGEBLOB, "append": azure.BlobType.APPENDBLOB}.get(options.pop("kind", ""), azure.BlobType.BLOCKBLOB)
    md5, tier, snapshot = options.pop("md5", None), options.pop("tier", None), options.pop("snapshot", None)
    settings = azure.ContentSettings(content_type=options.pop("type", None))
    if md5:
        settings.content_md5 = bytearray(base64.b64decode(md5))
    client = container(words[0]).get_blob_client(words[1])
    with open(words[2], "rb") as file:
        client.upload_blob(file.read(), blob_type=kind, overwrite=True, content_settings=settings, metadata=options or None)
    if snapshot:
        client.create_snapshot()
    if tier:
        client.set_standard_blob_tier(tier)
elif command == "batch":
    with open(words[0], encoding="utf-8") as file:
        wanted = json.load(file)
    for one in wanted:
        with open(one["file"], "rb") as file:
            content = file.read()
        client = container(one["container"]).get_blob_client(one["name"])
        settings = azure.ContentSettings(content_type=one.get("type"), cache_control=one.get("cache"))
        more = {"content_settings": settings, "metadata": one.get("metadata")}
        if one.get("kind") == "page" and "ranges" in one:
            client.create_page_blob(len(content), **more)
            for offset, length in one["ranges"]:
                client.upload_page(content[offset : offset + length], offset, length)
        elif "times" in one:
            # The longest id that there is.
            block = azure.BlobBlock(block_id="x" * 64)
            client.stage_block(block.id, content)
            client.commit_block_list([block] * one["times"], **more)
        elif "block" in one:
            ids, at, lengths = [], 0, one["block"]
            if isinstance(lengths, int):
                lengths = [lengths] * -(-len(content) // lengths)
            for length in lengths:
                ids.append(azure.BlobBlock(block_id=f"block-{at:012}"))
                client.stage_block(ids[-1].id, content[at : at + length])
                at += length
            client.commit_block_list(ids, **more)
        else:
            kind = {"page": azure.BlobType.PAGEBLOB, "append": azure.BlobType.APPENDBLOB}.get(one.get("kind"), azure.BlobType.BLOCKBLOB)
            client.upload_blob(content, blob_type=kind, overwrite=True, **more)
        if one.get("snapshot"):
            client.create_snapshot()
        if one.get("lease"):
            client.acquire_lease()
elif command == "get":
    with open(words[2], "wb") as file:
        service.get_blob_client(words[0], words[1]).download_blob().readinto(file)
elif command == "many":
    there = container(words[0])
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: there.upload_blob(f"blob-{i:07}", b"x", overwrite=True), range(int(words[1]))))
elif command == "read":
    there = service.get_container_client(words[0])
    for one in there.list_blobs(include=["metadata"]) if there.exists() else []:
        client = there.get_blob_client(one.name)
        settings, content = one.content_settings, client.download_blob().readall()
        md5 = settings.content_md5 and base64.b64encode(bytes(settings.content_md5)).decode()
        is_pages, is_blocks = (one.blob_type == kind for kind in (azure.BlobType.PAGEBLOB, azure.BlobType.BLOCKBLOB))
        blocks = [] if not is_blocks else [[block.id, block.size] for block in client.get_block_list("committed")[0]]
        waiting = [] if not is_blocks else [[block.id, block.size] for block in client.get_block_list("uncommitted")[1]]
        ranges = [[r["start"], r["end"] + 1] for r in client.get_page_ranges()[0]] if is_pages else []
        print(json.dumps({"name": one.name, "length": one.size, "kind": one.blob_type, "md5": md5, "type": settings.content_type,
                          "encoding": settings.content_encoding, "language": settings.content_language,
                          "cache": settings.cache_control, "metadata": one.metadata, "blocks": blocks, "waiting": waiting,
                          "ranges": ranges, "sha256": hashlib.sha256(content).hexdigest(), "lease": one.lease.state}))
elif command == "stage":
    client = container(words[0]).get_blob_client(words[1])
    with open(words[3], "rb") as file:
        # The client encodes what it gets.
        client.stage_block(base64.b64decode(words[2]).decode("latin-1"), file.read())
elif command == "lease":
    service.get_blob_client(words[0], words[1]).acquire_lease()
elif command == "delete":
    service.get_blob_client(words[0], words[1]).delete_blob()
else:
    sys.exit(f"no command {command}")
