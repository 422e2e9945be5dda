#!/usr/bin/env python3
"""azure_server.py SPEC_DIR LOG: a local stand-in of the two services' APIs that believes only the published files.

SPEC_DIR holds arm-2021-01-01 and databox-2021-08-01-preview as published. Every request must be of a path, method and
api-version that the descriptions know, carry the token `Bearer good-token`, and have a body that its schema allows, with
no field that the schema does not describe. Answers are the published examples, with the request's own names in them.
Data Box only queues an order, as recordings of the real service show: 202, empty, with `Location` and `Retry-After`; that
address answers 202 with a new `Location`, and then with the job, or with the order's error (a job whose name begins with
`locked` has one). Its DELETE is 202 too, cancelling 204.
Listens on 127.0.0.1, prints `PORT n` once, and writes one JSON line a request to LOG. Ends when stdin ends.
Exit 3: no judge here.
"""
import http.server
import json
import os
import re
import sys
import threading
import urllib.parse

try:
    import jsonschema
except ImportError:
    print("no Python package jsonschema")
    sys.exit(3)

SPEC, LOG = sys.argv[1], sys.argv[2]
# A numerical password that is one.
KEY = "238810-662376-448998-450120-652806-203390-606320-483076"


def load(*parts):
    with open(os.path.join(SPEC, *parts), encoding="utf-8") as file:
        return json.load(file)


APIS = [load("arm-2021-01-01", "storageimportexport.json"), load("databox-2021-08-01-preview", "databox.json")]
EXAMPLES = {
    "create": load("arm-2021-01-01", "examples", "CreateJob.json")["responses"]["201"]["body"],
    "get": load("arm-2021-01-01", "examples", "GetJob.json")["responses"]["200"]["body"],
    "update": load("arm-2021-01-01", "examples", "UpdateJob.json")["responses"]["200"]["body"],
    "location": load("arm-2021-01-01", "examples", "GetLocation.json")["responses"]["200"]["body"],
    "keys": {"value": [{"driveId": "WD-9", "bitLockerKey": KEY}]},
    "credentials": {"value": [{"jobName": "j", "jobSecrets": {
        "jobSecretsType": "DataBoxCustomerDisk", "diskSecrets": [{"diskSerialNumber": "WD-9", "bitLockerKey": KEY}]}}]},
    "databox": load("databox-2021-08-01-preview", "examples", "JobsGet.json")["responses"]["200"]["body"],
}
JOBS = {}
# What was queued: number -> [questions until it is over, status, body].
QUEUED = {}


def export_examples():
    """What exports are: the published request passes, and the keys are in the published answer's form."""
    api = APIS[0]
    body = load("arm-2021-01-01", "examples", "CreateExportJob.json")["parameters"]["body"]
    jsonschema.Draft4Validator(resolved(api, {"$ref": "#/definitions/PutJobParameters"})).validate(body)
    api = APIS[1]
    body = load("databox-2021-08-01-preview", "examples", "JobsCreateExport.json")["parameters"]["jobResource"]
    jsonschema.Draft4Validator(derived(api, resolved(api, {"$ref": "#/definitions/JobResource"}), body)).validate(body)
    published = load("arm-2021-01-01", "examples", "ListBitLockerKeys.json")["responses"]["200"]["body"]
    assert set(published["value"][0]) == set(EXAMPLES["keys"]["value"][0])
    secret = APIS[1]["definitions"]["DiskSecret"]["properties"]
    assert set(EXAMPLES["credentials"]["value"][0]["jobSecrets"]["diskSecrets"][0]) <= set(secret)


def resolved(api, schema):
    """The schema without references and inheritance, closed against fields that it does not name."""
    if "$ref" in schema:
        if not schema["$ref"].startswith("#/"):
            return {}
        return resolved(api, api["definitions"][schema["$ref"].split("/")[-1]])
    out = {key: schema[key] for key in ("type", "enum", "required", "pattern", "minLength", "maxLength") if key in schema}
    properties = {}
    for base in schema.get("allOf", []):
        below = resolved(api, base)
        properties.update(below.get("properties", {}))
        out["required"] = sorted(set(out.get("required", [])) | set(below.get("required", [])))
    for name, below in schema.get("properties", {}).items():
        if not below.get("readOnly"):
            properties[name] = resolved(api, below)
    if properties:
        out["properties"] = properties
        out["additionalProperties"] = False
    if "additionalProperties" in schema:
        out["additionalProperties"] = resolved(api, schema["additionalProperties"])
    if "items" in schema:
        out["items"] = resolved(api, schema["items"])
    if not out.get("required", True):
        del out["required"]
    return out


def derived(api, schema, body):
    """Discriminators: what `jobDetailsType` and `dataAccountType` say decides on the definition."""
    def walk(schema, value):
        if isinstance(value, dict):
            for field, base in (("jobDetailsType", "JobDetails"), ("dataAccountType", "DataAccountDetails")):
                # Other definitions have a field of that name too, and nothing derived from them.
                own = resolved(api, api["definitions"].get(base, {})).get("properties", {})
                if field in value and field in own and set(schema.get("properties", {})) == set(own):
                    for definition in api["definitions"].values():
                        wanted = definition.get("x-ms-discriminator-value") == value[field]
                        if wanted and {"$ref": f"#/definitions/{base}"} in definition.get("allOf", []):
                            schema.clear()
                            schema.update(resolved(api, definition))
            for name, below in value.items():
                inner = schema.get("properties", {}).get(name)
                if inner is None and isinstance(schema.get("additionalProperties"), dict):
                    inner = schema["additionalProperties"]
                if isinstance(inner, dict):
                    walk(inner, below)
        elif isinstance(value, list) and isinstance(schema.get("items"), dict):
            for below in value:
                walk(schema["items"], below)
    walk(schema, body)
    return schema


def operation(method, path):
    """The description, its operation, and the values in the path."""
    for api in APIS:
        for template, methods in api["paths"].items():
            names = re.findall(r"{(\w+)}", template)
            form = "^" + re.sub(r"{\w+}", "([^/]+)", template) + "$"
            match = re.match(form, path)
            if match and method in methods:
                return api, methods[method], dict(zip(names, match.groups()))
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, status, body=None, headers=()):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, code, message):
        self.note(fault=message)
        self.answer(status, {"error": {"code": code, "message": message}})

    def note(self, **more):
        with open(LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps({"method": self.command, "path": self.path, **more}) + "\n")

    def serve(self):
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        if self.headers.get("Authorization") != "Bearer good-token":
            return self.refuse(401, "AuthenticationFailed", "no valid token")
        queued = re.fullmatch(r"/subscriptions/[^/]+/providers/Microsoft.DataBox/locations/[^/]+/operationResults/(\d+)", path)
        if queued and self.command == "GET" and int(queued[1]) in QUEUED:
            self.note()
            return self.over(int(queued[1]))
        found = operation(self.command.lower(), path)
        if found is None:
            return self.refuse(404, "NotFound", f"no operation {self.command} {path}")
        api, described, names = found
        if query.get("api-version") != api["info"]["version"]:
            return self.refuse(400, "InvalidApiVersion", f"api-version is {query.get('api-version')}")
        common = {f"#/parameters/{key}": value for key, value in api.get("parameters", {}).items()}
        parameters = [common.get(one.get("$ref"), one) for one in described["parameters"]]
        for one in parameters:
            if one.get("in") == "path" and one["name"] in names:
                rules = {key: one[key] for key in ("pattern", "minLength", "maxLength") if key in one}
                for error in jsonschema.Draft4Validator(rules).iter_errors(names[one["name"]]):
                    return self.refuse(400, "InvalidName", error.message)
        wanted = [one for one in parameters if one.get("in") == "body"]
        body = None
        if wanted:
            try:
                body = json.loads(raw)
            except ValueError as error:
                return self.refuse(400, "InvalidJson", str(error))
            schema = derived(api, resolved(api, wanted[0]["schema"]), body)
            errors = list(jsonschema.Draft4Validator(schema).iter_errors(body))
            if errors:
                told = "; ".join("/".join(map(str, e.absolute_path)) + ": " + e.message[:200] for e in errors)
                return self.refuse(400, "InvalidBody", told)
        elif raw:
            return self.refuse(400, "InvalidBody", "a body where none is described")
        self.note(body=body)
        return self.act(api, path, names, body)

    def queue(self, status, body, after=lambda: None):
        """The request is taken, and what it comes to is told later, at another address."""
        number = len(QUEUED) + 1
        QUEUED[number] = [2, status, body, after]
        self.answer(202, None, self.place(number))

    def place(self, number):
        host = f"http://127.0.0.1:{self.server.server_address[1]}"
        path = f"/subscriptions/{self.path.split('/')[2]}/providers/Microsoft.DataBox/locations/westus/operationResults/{number}"
        # The real one's query is signed anew each time.
        return [("Location", f"{host}{path}?api-version=2025-02-01&t={QUEUED[number][0]}&c=MII-_"), ("Retry-After", "0")]

    def over(self, number):
        one = QUEUED[number]
        if f"&t={one[0]}&" not in self.path:
            return self.refuse(400, "InvalidOperationToken", "an address of an earlier answer")
        if one[0] > 1:
            one[0] -= 1
            return self.answer(202, None, self.place(number))
        one[3]()
        return self.answer(one[1], one[2])

    def act(self, api, path, names, body):
        arm = api is APIS[0]
        name = names.get("jobName")
        if path.endswith(f"locations/{names.get('locationName')}"):
            return self.answer(200, EXAMPLES["location"])
        if path.endswith("/locations"):
            return self.answer(200, {"value": [EXAMPLES["location"]]})
        if self.command == "PUT":
            properties = body["properties"]
            export = (properties.get("jobType") == "Export") if arm else (properties["transferType"] == "ExportFromAzure")
            if arm and export != ("export" in properties) or arm and export == ("driveList" in properties):
                return self.refuse(400, "InvalidBody", "an export has blobs and no drives, an import drives and no blobs")
            if arm and len(properties.get("driveList", [])) > 10:
                return self.refuse(400, "TooManyDrives", "more than ten drives")
            answer = dict(EXAMPLES["create" if arm else "databox"], name=name)
            answer["properties"] = dict(answer["properties"])
            if arm:
                drives = [dict(one, state="Specified") for one in properties.get("driveList", [])]
                for one in drives:
                    one.pop("bitLockerKey")
                answer["properties"]["driveList"] = drives
            else:
                answer["properties"]["status"] = "AwaitingShipmentDetails"
            if not arm:
                if name.startswith("locked"):
                    return self.queue(400, {"error": {"code": "OrderFailed", "message": "The order could not be placed.",
                        "details": [{"code": "StorageAccountNotAccessible", "message": "The account cannot be reached."}]}})
                return self.queue(200, answer, lambda: JOBS.update({path: answer}))
            JOBS[path] = answer
            return self.answer(201, answer)
        job = JOBS.get("/".join(path.split("/")[:9]))
        if job is None:
            return self.refuse(404, "ResourceNotFound", f"no job {name}")
        if self.command == "GET":
            return self.answer(200, job)
        if self.command == "DELETE":
            if arm and job["properties"].get("state") not in ("Creating", "Completed", "Closed"):
                return self.refuse(409, "InvalidJobState", "a job can be deleted before it is shipped, or when it is over")
            if arm:
                del JOBS[path]
                return self.answer(200)
            if job["properties"]["status"] not in ("Cancelled", "Completed"):
                return self.refuse(409, "InvalidJobState", "cancel it first")
            return self.queue(200, None, lambda: JOBS.pop(path, None))
        if path.endswith(("/listBitLockerKeys", "/listCredentials")):
            return self.answer(200, EXAMPLES["keys"] if arm else EXAMPLES["credentials"])
        if self.command == "PATCH" and not arm:
            job["properties"].setdefault("details", {}).update(body["properties"].get("details", {}))
            return self.queue(200, job)
        if self.command == "PATCH":
            change = body["properties"]
            if change.get("state") == "Shipping" and not change.get("deliveryPackage"):
                return self.refuse(400, "MissingPackage", "Shipping needs a delivery package")
            job["properties"].update({key: value for key, value in change.items()})
            return self.answer(200, job)
        if path.endswith("/markDevicesShipped"):
            job["properties"]["status"] = "ShippedToAzureDC"
            return self.answer(204)
        if path.endswith("/cancel"):
            job["properties"]["status"] = "Cancelled"
            return self.answer(204)
        return self.refuse(400, "NotHere", "not played here")

    do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = serve


def check_examples():
    """The published requests must pass, else this judge is wrong."""
    api = APIS[0]
    for file, definition in (("CreateJob", "PutJobParameters"), ("UpdateJob", "UpdateJobParameters")):
        body = load("arm-2021-01-01", "examples", f"{file}.json")["parameters"]["body"]
        jsonschema.Draft4Validator(resolved(api, {"$ref": f"#/definitions/{definition}"})).validate(body)
    api = APIS[1]
    body = load("databox-2021-08-01-preview", "examples", "JobsCreate.json")["parameters"]["jobResource"]
    jsonschema.Draft4Validator(derived(api, resolved(api, {"$ref": "#/definitions/JobResource"}), body)).validate(body)


check_examples()
export_examples()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"PORT {server.server_address[1]}", flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
