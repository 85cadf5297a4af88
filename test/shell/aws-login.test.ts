import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { fakeAws, HOME, rawAws } from "../kit/aws-secrets.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { lastJson, makeWorld } from "../kit/world.ts";

/** What a machine at AWS asks for the login of its role. */
const roleServer = async () => {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    const Expiration = new Date(Date.now() + 3_600_000).toISOString();
    const login = { Code: "Success", AccessKeyId: "ASIAROLE", SecretAccessKey: "s", Token: "t", Expiration };
    if (request.method === "PUT") response.end("token");
    else response.end(request.url?.endsWith("/security-credentials/") ? "rotator" : JSON.stringify(login));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
};

test("the built program logs in as the role of its machine, and without any login says what to do", async () => {
  const [aws, world, role] = [await fakeAws(), await makeWorld(), await roleServer()];
  onTestFinished(async () => await Promise.all([aws.close(), world.close()]).then(() => {}));
  const [secretId, key] = [`prod/${randomUUID()}`, madeKey()];
  const create = { Name: secretId, ClientRequestToken: randomUUID(), SecretString: key };
  await rawAws(aws.endpoint, HOME, "CreateSecret", create);
  const store = `{ name: aws, type: aws-secrets-manager, region: ${HOME}, secretId: ${secretId}, endpoint: "${aws.endpoint}" }`;
  const config = readFileSync(world.configFile, "utf8");
  writeFileSync(world.configFile, config.replace(/\{ name: env,.*\}/, store));

  const ran = await world.run(["status", "--json"], { env: { AWS_EC2_METADATA_SERVICE_ENDPOINT: role.url } });
  expect(lastJson(ran.stdout)).toMatchObject({ apps: [{ stores: [{ name: "aws", state: "in-sync" }] }] });
  expect(role.asked).toContain("GET /latest/meta-data/iam/security-credentials/rotator");

  const none = await world.run(["doctor", "--json"], { env: { AWS_EC2_METADATA_DISABLED: "true" } });
  expect(none.code).toBe(5);
  expect(lastJson(none.stdout)["checks"]).toContainEqual(
    expect.objectContaining({
      target: "aws",
      status: "fail",
      fix: expect.stringContaining("aws sts get-caller-identity"),
    }),
  );
  expect(findKey(world.printed(), key)).toEqual([]);
});
