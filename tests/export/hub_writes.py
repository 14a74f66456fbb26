"""What a hub does when it is written to: repositories, LFS objects and commits, as `huggingface_hub` asks for them."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from hub_stand_in import HubStandIn

TOKEN = "hf_a-token-that-no-message-may-show"
Answer = tuple[int, dict[str, str], bytes]


class HubWrites:
    """Answers requests that write, of those who show `TOKEN`. ``failing`` maps a step to the status that it answers.

    With ``loses_answer`` a commit is made and its answer is an error.
    """

    def __init__(self, hub: HubStandIn) -> None:
        self.hub = hub
        self.objects: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}
        self.failing: dict[str, int] = {}
        self.loses_answer = False

    def __call__(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer | None:
        steps = {
            "create": r"/api/repos/create",
            "validate": r"/api/validate-yaml",
            "preupload": r"/api/models/(.+)/preupload/main",
            "batch": r"/(.+)\.git/info/lfs/objects/batch",
            "object": r"/lfs/([0-9a-f]{64})",
            "commit": r"/api/models/(.+)/commit/main",
        }
        for step, pattern in steps.items():
            if method in ("POST", "PUT") and (found := re.fullmatch(pattern, path)):
                if step != "object" and headers.get("authorization") != f"Bearer {TOKEN}":
                    return _json({"error": "Invalid username or password."}, 401)
                if step in self.failing:
                    return _json({"error": f"{step} failed for {TOKEN}"}, self.failing[step])
                return getattr(self, f"_{step}")(*found.groups(), body)
        return None

    def _create(self, body: bytes) -> Answer:
        asked = json.loads(body)
        name = f"models/{asked['organization']}/{asked['name']}"
        url = f"{self.hub.url}/{name.removeprefix('models/')}"
        if name in self.hub.repos:
            return _json({"error": "You already created this model repo", "url": url}, 409)
        self.private[name] = asked.get("visibility") == "private"
        self.hub.put(name, {".gitattributes": "*.safetensors filter=lfs\n"})
        return _json({"url": url})

    def _validate(self, body: bytes) -> Answer:
        front = json.loads(body)["content"].split("---\n")[1]
        problems = [] if isinstance(yaml.safe_load(front), dict) else [{"message": "no mapping"}]
        return _json({"errors": problems, "warnings": []}, 400 if problems else 200)

    def _preupload(self, repo: str, body: bytes) -> Answer:
        files = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for each in json.loads(body)["files"]
        ]
        return _json({"files": files})

    def _batch(self, repo: str, body: bytes) -> Answer:
        objects: list[dict[str, Any]] = []
        for each in json.loads(body)["objects"]:
            known = each["oid"] in self.objects
            upload = {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}}
            objects.append(each if known else each | upload)
        return _json({"transfer": "basic", "objects": objects})

    def _object(self, oid: str, body: bytes) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            return _json({"error": "another sha256"}, 400)
        self.objects[oid] = body
        return 200, {}, b""

    def _commit(self, repo: str, body: bytes) -> Answer:
        lines = [json.loads(line) for line in body.splitlines()]
        commits = self.hub.repos[f"models/{repo}"].commits
        newest = next(reversed(commits))
        files = dict(commits[newest])
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    if value.get("parentCommit") not in (None, newest):
                        return _json({"error": "somebody else has committed"}, 412)
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
                case other:
                    return _json({"error": f"no {other}"}, 400)
        sha = self.hub.put(f"models/{repo}", files)
        if self.loses_answer:
            return _json({"error": "too late"}, 400)
        return _json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{sha}"})


def _json(value: object, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json", "X-Request-Id": "1"}, json.dumps(value).encode()
