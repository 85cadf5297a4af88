"""Drives a Key Vault by Microsoft's Python client and prints what it saw, one JSON object. No value of a secret is printed."""

import json
import os
import sys
from datetime import datetime, timezone

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.keyvault.secrets import ApiVersion, SecretClient

asked = []


class Login:
    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **more):
        asked.append([list(scopes), more.get("tenant_id")])
        return AccessToken(self.token, 4102444800)


def client(token=None, **more):
    return SecretClient(
        os.environ["VAULT_URL"],
        Login(token or os.environ["VAULT_TOKEN"]),
        verify_challenge_resource=False,
        connection_verify=os.environ["VAULT_CA"],
        retry_total=0,
        **more,
    )


def refused(call):
    try:
        call()
    except HttpResponseError as error:
        code = error.error.code if error.error else None
        inner = (error.error.innererror or {}).get("code") if error.error else None
        return [type(error).__name__, error.status_code, code, inner]
    return None


def life(vault, name):
    seen = {}
    exp, nbf = (datetime(y, 1, 1, tzinfo=timezone.utc) for y in (2190, 2020))
    first = vault.set_secret(name, "first", content_type="text/plain", tags={"team": "chat"}, expires_on=exp, not_before=nbf)
    second = vault.set_secret(name, "second", tags={"team": "chat"})
    p = first.properties
    seen["set"] = [p.content_type, p.tags, p.enabled, p.expires_on == exp, p.not_before == nbf, first.value == "first"]
    seen["versions differ"] = first.properties.version != second.properties.version
    seen["newest"] = vault.get_secret(name).value == "second"
    seen["by version"] = vault.get_secret(name, first.properties.version).value == "first"
    listed = [v.version for v in vault.list_properties_of_secret_versions(name, max_page_size=1)]
    seen["listed in id order"] = listed == sorted([first.properties.version, second.properties.version])
    seen["list of nothing"] = list(vault.list_properties_of_secret_versions("no-such-name"))
    updated = vault.update_secret_properties(name, second.properties.version, content_type="x", tags={})
    seen["updated"] = [updated.content_type, updated.tags]
    vault.update_secret_properties(name, enabled=False)
    seen["disabled"] = refused(lambda: vault.get_secret(name))
    vault.update_secret_properties(name, second.properties.version, enabled=True)
    seen["secrets"] = name in [s.name for s in vault.list_properties_of_secrets()]
    deleted = vault.begin_delete_secret(name, _polling_interval=0.05)
    seen["while being deleted"] = refused(lambda: vault.set_secret(name, "third"))
    deleted.wait()
    seen["deleted"] = [vault.get_deleted_secret(name).name == name, deleted.result().scheduled_purge_date is not None]
    seen["deleted secrets"] = name in [s.name for s in vault.list_deleted_secrets()]
    seen["on a deleted name"] = refused(lambda: vault.set_secret(name, "third"))
    seen["get of a deleted one"] = refused(lambda: vault.get_secret(name))
    vault.begin_recover_deleted_secret(name, _polling_interval=0.05).wait()
    seen["recovered"] = vault.get_secret(name).value == "second"
    vault.begin_delete_secret(name, _polling_interval=0.05).wait()
    vault.purge_deleted_secret(name)
    seen["purged"] = refused(lambda: vault.get_deleted_secret(name))
    return seen


def main():
    name = os.environ["SECRET"]
    if sys.argv[1] == "read":
        with client() as vault:
            found = vault.get_secret(name)
            print(json.dumps({"same": found.value == os.environ["EXPECTED"], "tags": found.properties.tags}))
    elif sys.argv[1] == "write":
        with client() as vault:
            print(json.dumps({"version": vault.set_secret(name, os.environ["EXPECTED"]).properties.version}))
    else:
        # Every api-version that the client speaks, the oldest with its other shapes too.
        seen = {}
        for version in ApiVersion:
            with client(api_version=version) as vault:
                seen[version.value] = life(vault, f"{name}-{version.value.replace('.', '-')}")
        with client(token="of-another-tenant") as vault:
            seen["another login"] = refused(lambda: vault.get_secret(name))
        with client() as vault:
            seen["a name that is none"] = refused(lambda: vault.get_secret("no_such_name"))
        seen["asked"] = sorted({json.dumps(one) for one in asked})
        print(json.dumps(seen))


main()
