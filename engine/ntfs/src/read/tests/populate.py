# Fills a mounted NTFS volume with files of every kind that ntfs-3g can write; prints path and SHA-256 of each.
import hashlib, os, random, sys
root, scale = sys.argv[1], int(sys.argv[2])
rnd = random.Random(5)
def put(path, data):
    full = os.path.join(root, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, 'wb') as f: f.write(data)
text = b''.join(b'%d: the quick brown fox jumps over the lazy dog\n' % i for i in range(20000))
for size in (0, 1, 100, 699, 700, 720, 721, 1023, 4095, 4096, 4097, 65536, 1000003):
    put(f'sizes/{size}.bin', rnd.randbytes(size))
for i in range(scale): put(f'many/file number {i} with a name.txt', b'%d' % i)
put('Größe/ünïcödé-\u4e2d\u6587-\U0001F600.txt', b'astral')
put('a/' + '/'.join(f'level{i}' for i in range(40)) + '/deep.txt', b'deep')
put('n' * 255, b'long name')
# Fragments: two files growing in turns, then every second of many small ones removed and a large one put in the gaps.
os.makedirs(os.path.join(root, 'frag'))
with open(os.path.join(root, 'frag/a'), 'wb') as a, open(os.path.join(root, 'frag/b'), 'wb') as b:
    for i in range(300):
        for f in (a, b):
            f.write(rnd.randbytes(5000)); f.flush(); os.fsync(f.fileno())
# Sparse.
with open(os.path.join(root, 'sparse.bin'), 'wb') as f:
    f.seek(3_000_000); f.write(b'middle'); f.seek(9_000_001); f.write(b'end')
with open(os.path.join(root, 'holes.bin'), 'wb') as f:
    for i in range(400):
        f.seek(i * 200_000); f.write(rnd.randbytes(4096))
# Hard links, streams.
os.link(os.path.join(root, 'sizes/700.bin'), os.path.join(root, 'a/hard link.bin'))
for i in range(40): os.link(os.path.join(root, 'sizes/4096.bin'), os.path.join(root, f'a/one of many links to the same file {i:03}.bin'))
for i in range(30): os.setxattr(os.path.join(root, 'sizes/1.bin'), f'user.stream{i:02}', rnd.randbytes(50 + i * 90))
os.setxattr(os.path.join(root, 'sizes/4097.bin'), 'user.large', text[:60000])
# Compression is possible up to 4 KiB clusters.
packed = os.path.join(root, 'packed'); os.makedirs(packed)
try:
    os.setxattr(packed, 'system.ntfs_attrib', (0x810).to_bytes(4, 'little'))
    with open(os.path.join(packed, 'text.txt'), 'wb') as f: f.write(text)
    with open(os.path.join(packed, 'random.bin'), 'wb') as f: f.write(rnd.randbytes(300_001))
    with open(os.path.join(packed, 'mixed.bin'), 'wb') as f:
        for i in range(40): f.write(rnd.randbytes(30_000) if i % 3 == 0 else bytes(50_000) if i % 3 == 1 else text[i:70_000 + i])
    with open(os.path.join(packed, 'zeros.bin'), 'wb') as f: f.write(bytes(500_000))
except OSError as e: print('no compression:', e, file=sys.stderr)
for base, dirs, files in os.walk(root):
    for name in files:
        full = os.path.join(base, name)
        digest = hashlib.sha256(open(full, 'rb').read()).hexdigest()
        print(f"F\t{os.path.relpath(full, root).encode('utf-16-le').hex()}\t{digest}")
