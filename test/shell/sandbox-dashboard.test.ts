import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, describe, expect, it } from "vitest";
import { type Sandbox, type SandboxOptions, startSandbox } from "../../src/shell/sandbox/server.ts";

const running: Sandbox[] = [];
const start = async (options: SandboxOptions = {}): Promise<Sandbox> => {
  const sandbox = await startSandbox(options);
  running.push(sandbox);
  return sandbox;
};
afterEach(async () => {
  await Promise.all(running.splice(0).map((sandbox) => sandbox.close()));
});

type Answer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly text: string;
};
type Ask = { readonly method?: string; readonly headers?: Record<string, string>; readonly body?: string };
/** Not fetch: that one sets Host and Origin by itself. */
const ask = (
  sandbox: Sandbox,
  path: string,
  { method = "GET", headers = {}, body }: Ask = {},
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const request = httpRequest(
      { host: "127.0.0.1", port: sandbox.port, path, method, headers },
      (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
        response.on("end", () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, text }),
        );
      },
    );
    request.on("error", reject).end(body);
  });

const JSON_ACCEPT = { accept: "application/json" };
const FORM = { "content-type": "application/x-www-form-urlencoded" };
const KEY = /[A-Za-z0-9+/]{58,60}={0,2}/;
const works = async (sandbox: Sandbox, key: string): Promise<boolean> =>
  (await ask(sandbox, "/admin/connection-count", { headers: { "im-api-key": key } })).status === 200;

describe("issue", () => {
  it("shows the new key on one page, once", async () => {
    const sandbox = await start();
    const posted = await ask(sandbox, "/dashboard/issue", { method: "POST" });
    expect(posted.status).toBe(303);
    expect(posted.text).not.toMatch(KEY);
    const location = String(posted.headers["location"]);
    const head = await ask(sandbox, location, { method: "HEAD" });
    expect([head.status, head.text]).toEqual([200, ""]);

    const shown = await ask(sandbox, location);
    const key = KEY.exec(shown.text.slice(shown.text.indexOf("<textarea")))?.[0] ?? "";
    expect(key).toHaveLength(60);
    expect(await works(sandbox, key)).toBe(true);
    expect(sandbox.keys()).toHaveLength(2);
    expect(shown.status).toBe(201);
    expect(shown.headers["cache-control"]).toBe("no-store");

    const again = await ask(sandbox, location);
    expect(again.status).toBe(410);
    for (const path of [location, "/", "/dashboard", "/dashboard/revoke?id=2"]) {
      expect((await ask(sandbox, path)).text).not.toContain(key.slice(0, 10));
    }
  });

  it("does not show a key to a later or wrong ticket", async () => {
    let now = 1_000_000;
    const sandbox = await start({ now: () => now });
    const location = String((await ask(sandbox, "/dashboard/issue", { method: "POST" })).headers["location"]);
    expect((await ask(sandbox, "/dashboard/issued")).status).toBe(410);
    expect((await ask(sandbox, `/dashboard/issued?ticket=${"0".repeat(32)}`)).status).toBe(410);
    now += 5 * 60_000;
    const late = await ask(sandbox, location);
    expect([late.status, KEY.test(late.text.slice(late.text.indexOf("<main>")))]).toEqual([410, false]);
  });

  it("gives JSON to a shell user, and issuing by GET is not possible", async () => {
    const sandbox = await start();
    const issued = JSON.parse(
      (await ask(sandbox, "/dashboard/issue", { method: "POST", headers: JSON_ACCEPT })).text,
    );
    expect(issued).toEqual({ id: 2, key: expect.any(String) });
    expect(await works(sandbox, issued.key)).toBe(true);
    expect((await ask(sandbox, "/dashboard/issue")).status).toBe(405);
    const list = JSON.parse((await ask(sandbox, "/dashboard", { headers: JSON_ACCEPT })).text);
    expect(list.keys.map((key: { id: number }) => key.id)).toEqual([1, 2]);
    expect(JSON.stringify(list)).not.toContain(issued.key.slice(0, 8));
  });
});

describe("revoke", () => {
  it("asks first, then revokes", async () => {
    const sandbox = await start();
    const page = (await ask(sandbox, "/dashboard")).text;
    expect(page).toContain(
      '<form method="get" action="/dashboard/revoke"><input type="hidden" name="id" value="1">',
    );
    const question = await ask(sandbox, "/dashboard/revoke?id=1");
    expect(question.text).toContain("Revoke key #1?");
    expect(await works(sandbox, sandbox.firstKey())).toBe(true);

    const posted = await ask(sandbox, "/dashboard/revoke", { method: "POST", headers: FORM, body: "id=1" });
    expect([posted.status, posted.headers["location"]]).toEqual([303, "/dashboard?revoked=1"]);
    expect(await works(sandbox, sandbox.firstKey())).toBe(false);
    const after = (await ask(sandbox, "/dashboard?revoked=1")).text;
    expect(after).toContain("Key #1 is revoked.");
    expect(after).not.toContain('value="1"');
    expect((await ask(sandbox, "/dashboard/revoke?id=1")).status).toBe(303);
  });

  it("does not say revoked of a key that is not", async () => {
    const sandbox = await start();
    expect((await ask(sandbox, "/dashboard?revoked=1")).text).not.toContain("is revoked");
    for (const id of ["", "0", "7", "-1", "x", "1e0", "__proto__"]) {
      expect((await ask(sandbox, `/dashboard/revoke?id=${id}`)).status).toBe(404);
      expect(
        (await ask(sandbox, "/dashboard/revoke", { method: "POST", headers: FORM, body: `id=${id}` })).status,
      ).toBe(404);
    }
    expect(sandbox.keys()[0]?.revokedAt).toBe(null);
  });

  it("takes JSON", async () => {
    const sandbox = await start();
    const headers = { ...JSON_ACCEPT, "content-type": "application/json" };
    const post = (body: string): Promise<Answer> =>
      ask(sandbox, "/dashboard/revoke", { method: "POST", headers, body });
    for (const bad of ["", "{", "[1]", '{"id":1.5}', '{"id":9}']) expect((await post(bad)).status).toBe(404);
    expect(JSON.parse((await post('{"id":1}')).text)).toMatchObject({ id: 1, revokedAt: expect.any(Number) });
    expect(await works(sandbox, sandbox.firstKey())).toBe(false);
  });
});

describe("who may ask", () => {
  it("serves its own names only", async () => {
    const sandbox = await start();
    for (const name of ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"]) {
      expect((await ask(sandbox, "/", { headers: { host: `${name}:${sandbox.port}` } })).status).toBe(200);
    }
    for (const host of ["rebound.example", `rebound.example:${sandbox.port}`, "127.0.0.1", "127.0.0.1:1"]) {
      for (const path of ["/", "/admin/connection-count"]) {
        expect(
          (await ask(sandbox, path, { headers: { host, "im-api-key": sandbox.firstKey() } })).status,
        ).toBe(421);
      }
      expect((await ask(sandbox, "/dashboard/issue", { method: "POST", headers: { host } })).status).toBe(
        421,
      );
    }
    expect(sandbox.keys()).toHaveLength(1);
    const nameless = connect(sandbox.port, "127.0.0.1", () => nameless.write("GET / HTTP/1.0\r\n\r\n"));
    expect(await text(nameless)).toMatch(/^HTTP\/1.1 421 /);
  });

  it("refuses a form of another site", async () => {
    const sandbox = await start();
    const own = `http://127.0.0.1:${sandbox.port}`;
    const foreign: readonly Record<string, string>[] = [
      { origin: "https://evil.example" },
      { origin: "null" },
      { origin: `http://localhost:${sandbox.port}` },
      { origin: own.replace("http:", "https:") },
      { origin: own, "sec-fetch-site": "cross-site" },
      { "sec-fetch-site": "same-site" },
    ];
    for (const headers of foreign) {
      const json = { ...headers, ...JSON_ACCEPT };
      expect((await ask(sandbox, "/dashboard/issue", { method: "POST", headers: json })).status).toBe(403);
      const revoke = { method: "POST", headers: { ...headers, ...FORM }, body: "id=1" };
      expect((await ask(sandbox, "/dashboard/revoke", revoke)).status).toBe(403);
    }
    expect(sandbox.keys()).toEqual([{ id: 1, issuedAt: expect.any(Number), revokedAt: null }]);
    const ours = { origin: own, "sec-fetch-site": "same-origin" };
    expect((await ask(sandbox, "/dashboard/issue", { method: "POST", headers: ours })).status).toBe(303);
  });
});

describe("the page", () => {
  const pages = async (): Promise<readonly Answer[]> => {
    const sandbox = await start({ app: "<b>&'\"" });
    const location = String((await ask(sandbox, "/dashboard/issue", { method: "POST" })).headers["location"]);
    const paths = ["/", location, location, "/dashboard/revoke?id=1", "/dashboard/revoke?id=9"];
    const answers: Answer[] = [];
    for (const path of paths) answers.push(await ask(sandbox, path));
    return answers;
  };

  it("allows no script and loads nothing", async () => {
    for (const { headers, text } of await pages()) {
      const policy = String(headers["content-security-policy"]);
      expect(policy).toContain("default-src 'none'");
      expect(policy).not.toContain("unsafe");
      expect(policy).toContain("frame-ancestors 'none'");
      expect(headers["cache-control"]).toBe("no-store");
      expect(text).not.toMatch(/<script|<link|<img|\ssrc=|https?:\/\/|\sstyle=|\son\w+=/i);
    }
  });

  it("has one heading, a language, labels, and escapes what it is told", async () => {
    for (const { text } of await pages()) {
      expect(text.match(/<h1/g)).toHaveLength(1);
      expect(text).toContain('<html lang="en">');
      expect(text).toContain('name="viewport"');
      expect(text).not.toContain("<b>");
      for (const [, id] of text.matchAll(/<textarea id="(\w+)"/g))
        expect(text).toContain(`<label for="${id}">`);
    }
  });

  it("speaks the vendor's words in both languages and says that it is a stand-in", async () => {
    const sandbox = await start({ now: () => new Date(2026, 10, 24, 14, 2, 5).getTime() });
    const { text } = await ask(sandbox, "/dashboard");
    for (const word of [
      "API Settings",
      "API 設定",
      "Revoke",
      "撤銷",
      "Issue a new API Key",
      "僅顯示一次",
      "stand-in",
    ]) {
      expect(text).toContain(word);
    }
    expect(text.replace(/<[^>]*>/g, "").replaceAll("&nbsp;", " ")).toContain("14:02:05, id #1");
  });
});
