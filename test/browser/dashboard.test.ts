import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { type Sandbox, startSandbox } from "../../src/shell/sandbox/server.ts";
import { openPage, type Page } from "./chromium.ts";

let page: Page;
let sandbox: Sandbox;
beforeAll(async () => {
  page = await openPage();
});
beforeEach(async () => {
  await sandbox?.close();
  sandbox = await startSandbox({ app: "chat-prod" });
});
afterAll(async () => {
  await page.close();
  await sandbox.close();
});

const focused = (): Promise<string> => page.ask("document.activeElement.textContent.trim()");
/** Tabs until the focus is on something with this text. */
const tabTo = async (text: string): Promise<void> => {
  for (let i = 0; i < 20; i++) {
    await page.press("Tab");
    if ((await focused()).includes(text)) return;
  }
  throw new Error(`the keyboard does not reach ${text}`);
};
const shownKey = (): Promise<string> => page.ask("document.querySelector('textarea')?.value ?? ''");
const pageText = (): Promise<string> => page.ask("document.documentElement.outerHTML");

it("issues and revokes by keyboard alone, and shows the key once", async () => {
  await page.open(sandbox.dashboard);
  await tabTo("Issue a new API Key");
  await page.loads(() => page.press("Enter"));
  const key = await shownKey();
  expect(key).toHaveLength(60);
  expect(sandbox.keys()).toHaveLength(2);
  expect(sandbox.stats(key)).toEqual({ ok: 0, rejected: 0, limited: 0 });
  const answer = await fetch(`${sandbox.url}/admin/connection-count`, { headers: { "IM-API-KEY": key } });
  expect(answer.status).toBe(200);

  await page.loads(() => page.send("Page.reload"));
  expect(await shownKey()).toBe("");
  expect(await pageText()).not.toContain(key.slice(0, 10));
  await tabTo("Back to API Settings");
  await page.loads(() => page.press("Enter"));

  await tabTo("Revoke");
  expect(await focused()).toContain("#2");
  await page.press("Tab");
  expect(await focused()).toContain("#1");
  await page.loads(() => page.press("Enter"));
  expect(await pageText()).toContain("Revoke key #1?");
  expect(sandbox.keys()[0]?.revokedAt).toBe(null);
  await tabTo("Revoke");
  await page.loads(() => page.press("Enter"));
  expect(await pageText()).toContain("Key #1 is revoked.");
  expect(sandbox.keys().map(({ revokedAt }) => revokedAt !== null)).toEqual([true, false]);
});

it("the browser's back button does not bring the key back", async () => {
  await page.open(sandbox.dashboard);
  await tabTo("Issue a new API Key");
  await page.loads(() => page.press("Enter"));
  const key = await shownKey();
  expect(key).toHaveLength(60);
  await tabTo("Back to API Settings");
  await page.loads(() => page.press("Enter"));
  const history = await page.send("Page.getNavigationHistory");
  const entries = history["entries"] as readonly { readonly id: number; readonly url: string }[];
  const issued = entries.findLast(({ url }) => url.includes("/dashboard/issued"));
  // No load event comes where a browser takes the page out of its back/forward cache.
  await page.send("Page.navigateToHistoryEntry", { entryId: issued?.id });
  const at = "location.pathname + document.readyState";
  await expect.poll(() => page.ask(at)).toBe("/dashboard/issuedcomplete");
  expect(await pageText()).not.toContain(key.slice(0, 10));
});

it.each([360, 1000])("fits %i pixels, loads nothing, and makes the console quiet", async (width) => {
  for (let i = 0; i < 3; i++) sandbox.issue();
  sandbox.revoke(2);
  await page.width(width);
  const start = page.requests.length;
  const visit = async (name: string): Promise<void> => {
    expect(await page.ask("document.documentElement.scrollWidth")).toBeLessThanOrEqual(width);
    expect(await page.ask("document.querySelectorAll('h1').length")).toBe(1);
    const small =
      "[...document.querySelectorAll('button,a.button')].filter((one) => one.getBoundingClientRect().height < 44).length";
    expect(await page.ask(small)).toBe(0);
    const wide =
      "[...document.querySelectorAll('main *')].filter((one) => one.scrollWidth > innerWidth).length";
    expect(await page.ask(wide)).toBe(0);
    const folder = process.env["SCREENSHOTS"];
    if (folder === undefined) return;
    mkdirSync(folder, { recursive: true });
    const { data } = await page.send("Page.captureScreenshot");
    writeFileSync(join(folder, `${name}-${width}.png`), Buffer.from(String(data), "base64"));
  };
  await page.open(sandbox.dashboard);
  await visit("list");
  await tabTo("Issue a new API Key");
  await page.loads(() => page.press("Enter"));
  await visit("key");
  const fits =
    "(() => { const t = document.querySelector('textarea'); return t.scrollHeight <= t.clientHeight; })()";
  expect(await page.ask(fits)).toBe(true);
  await page.open(`${sandbox.dashboard}/revoke?id=1`);
  await visit("confirm");
  const foreign = page.requests.slice(start).filter((url) => !url.startsWith(`${sandbox.url}/`));
  expect(foreign).toEqual([]);
  expect(page.complaints.filter((text) => !text.includes("410"))).toEqual([]);
});
