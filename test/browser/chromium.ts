import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--remote-debugging-pipe",
];

type Json = Readonly<Record<string, unknown>>;
type Message = {
  readonly id?: number;
  readonly result?: Json;
  readonly error?: Json;
  readonly method?: string;
  readonly params?: Json;
};

export type Page = {
  /** One DevTools command. */
  readonly send: (method: string, params?: Json) => Promise<Json>;
  /** Opens an address and waits until it is loaded. */
  readonly open: (url: string) => Promise<void>;
  /** Does something that loads a page, and waits for it. */
  readonly loads: (act: () => Promise<unknown>) => Promise<void>;
  /** Value of an expression in the page. */
  readonly ask: <T>(expression: string) => Promise<T>;
  /** Presses keys, e.g. "Tab", "Enter". */
  readonly press: (...keys: readonly ("Tab" | "Enter")[]) => Promise<void>;
  readonly width: (pixels: number) => Promise<void>;
  /** Addresses asked for so far, and what the console complained about. */
  readonly requests: readonly string[];
  readonly complaints: readonly string[];
  readonly close: () => Promise<void>;
};

const KEYS = { Tab: { code: 9, text: "" }, Enter: { code: 13, text: "\r" } } as const;

/** Starts Debian's chromium with a fresh profile, spoken to through a pipe: no port, no driver package. */
export const openPage = async (): Promise<Page> => {
  const profile = mkdtempSync(join(tmpdir(), "chromium-"));
  const program = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
  const browser = spawn(program, [...FLAGS, `--user-data-dir=${profile}`], {
    stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
  });
  await once(browser, "spawn");
  const [, , , input, output] = browser.stdio as unknown as [null, null, null, Writable, Readable];

  const waiting = new Map<number, (message: Message) => void>();
  const requests: string[] = [];
  const complaints: string[] = [];
  let loaded: () => void = () => undefined;
  const hear = (message: Message): void => {
    if (message.id !== undefined) waiting.get(message.id)?.(message);
    const params = message.params ?? {};
    if (message.method === "Page.loadEventFired") loaded();
    if (message.method === "Network.requestWillBeSent")
      requests.push((params["request"] as { url: string }).url);
    if (message.method === "Log.entryAdded") complaints.push((params["entry"] as { text: string }).text);
  };
  let rest = "";
  output.setEncoding("utf8").on("data", (chunk: string) => {
    const parts = (rest + chunk).split("\0");
    rest = parts.pop() ?? "";
    for (const part of parts) hear(JSON.parse(part) as Message);
  });

  let count = 0;
  let sessionId: string | undefined;
  const send = async (method: string, params: Json = {}): Promise<Json> => {
    const id = ++count;
    const { promise, resolve } = Promise.withResolvers<Message>();
    waiting.set(id, resolve);
    input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    const { result, error } = await promise;
    waiting.delete(id);
    if (result === undefined) throw new Error(`${method}: ${JSON.stringify(error)}`);
    return result;
  };

  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  sessionId = (await send("Target.attachToTarget", { targetId, flatten: true }))["sessionId"] as string;
  for (const domain of ["Page", "Network", "Log", "Runtime"]) await send(`${domain}.enable`);

  const loads = async (act: () => Promise<unknown>): Promise<void> => {
    const load = new Promise<void>((resolve) => (loaded = resolve));
    await act();
    await load;
  };

  return {
    send,
    requests,
    complaints,
    loads,
    open: (url) => loads(() => send("Page.navigate", { url })),
    ask: async <T>(expression: string) => {
      const { result } = await send("Runtime.evaluate", { expression, returnByValue: true });
      return (result as { value: T }).value;
    },
    press: async (...keys) => {
      for (const key of keys) {
        const { code, text } = KEYS[key];
        const event = { key, code: key, windowsVirtualKeyCode: code };
        await send("Input.dispatchKeyEvent", {
          type: text === "" ? "rawKeyDown" : "keyDown",
          ...event,
          text,
        });
        await send("Input.dispatchKeyEvent", { type: "keyUp", ...event });
      }
    },
    width: async (width) => {
      const size = { width, height: 800, deviceScaleFactor: 1, mobile: width < 600 };
      await send("Emulation.setDeviceMetricsOverride", size);
    },
    close: async () => {
      const ended = once(browser, "exit");
      browser.kill("SIGKILL");
      await ended;
      rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
    },
  };
};
