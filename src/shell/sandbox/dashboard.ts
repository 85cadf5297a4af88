import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { LogEntry } from "./admin.ts";
import { parseObject, readBody, sendJson } from "./answers.ts";
import { confirmPage, keyPage, listPage, PAGE_HEADERS, shownPage, sorryPage } from "./page.ts";
import type { State } from "./state.ts";

const TICKET_MS = 5 * 60_000;
const MAX_TICKETS = 20;

type DashboardOptions = {
  readonly app: string;
  readonly state: State;
  readonly replaces: boolean;
  readonly now: () => number;
  readonly log: (entry: Omit<LogEntry, "at">) => void;
};

const sendPage = (response: ServerResponse, status: number, html: string): void => {
  response.writeHead(status, PAGE_HEADERS);
  response.end(response.req.method === "HEAD" ? undefined : html);
};

const goTo = (response: ServerResponse, location: string): void => {
  response.writeHead(303, { ...PAGE_HEADERS, location }).end();
};

const wantsJson = (request: IncomingMessage): boolean =>
  (request.headers.accept ?? "").toLowerCase().includes("application/json");

/**
 * A form of our own page, or a program that is no browser. Browsers send `Origin` with every POST and, to loopback, `Sec-Fetch-Site`;
 * what is there must name this very server.
 */
const isOurs = (request: IncomingMessage): boolean => {
  const { origin, host } = request.headers;
  const site = request.headers["sec-fetch-site"];
  return (
    (origin === undefined || origin === `http://${host}`) && (site === undefined || site === "same-origin")
  );
};

const idOf = (value: unknown): number | null => {
  if (typeof value === "number") return Number.isSafeInteger(value) ? value : null;
  return typeof value === "string" && /^\d{1,9}$/.test(value) ? Number(value) : null;
};

const bodyId = async (request: IncomingMessage): Promise<number | null> => {
  const text = await readBody(request, 4096);
  if (text === null) return null;
  return (request.headers["content-type"] ?? "").startsWith("application/json")
    ? idOf(parseObject(text)?.["id"])
    : idOf(new URLSearchParams(text).get("id"));
};

/** The Dashboard: gives a handler that answers a request and resolves, or says false for a path that is none of its own. */
export const createDashboard = (options: DashboardOptions) => {
  const { app, state, now } = options;
  /** Keys between the POST that issued them and the one GET that shows them. */
  const tickets = new Map<string, { readonly id: number; readonly key: string; readonly until: number }>();

  const keepTicket = (id: number, key: string): string => {
    for (const [name, ticket] of tickets) if (ticket.until <= now()) tickets.delete(name);
    const [oldest] = tickets.keys();
    if (tickets.size >= MAX_TICKETS && oldest !== undefined) tickets.delete(oldest);
    const name = randomBytes(16).toString("hex");
    tickets.set(name, { id, key, until: now() + TICKET_MS });
    return name;
  };

  const sorry = (request: IncomingMessage, response: ServerResponse, status: number, text: string): void =>
    wantsJson(request)
      ? sendJson(response, status, { error: "DASHBOARD", message: text })
      : sendPage(response, status, sorryPage(app, text));

  const show = (request: IncomingMessage, response: ServerResponse, url: URL): void => {
    if (wantsJson(request)) return sendJson(response, 200, { app, keys: state.keys() });
    const revoked = idOf(url.searchParams.get("revoked"));
    const done = revoked !== null && (state.find(revoked)?.revokedAt ?? null) !== null ? revoked : null;
    const view = { app, keys: state.keys(), now: now(), replaces: options.replaces, done };
    return sendPage(response, 200, listPage(view));
  };

  const showIssued = (request: IncomingMessage, response: ServerResponse, url: URL): void => {
    const name = url.searchParams.get("ticket") ?? "";
    const ticket = tickets.get(name);
    // A HEAD shows nothing, so it must not use the ticket up.
    if (request.method === "HEAD") return sendPage(response, 200, "");
    tickets.delete(name);
    if (ticket === undefined || ticket.until <= now()) return sendPage(response, 410, shownPage(app));
    // Not 200: browsers keep such a page, even with no-store, and Back would show the key again.
    return sendPage(response, 201, keyPage(app, ticket.id, ticket.key));
  };

  const askRevoke = (request: IncomingMessage, response: ServerResponse, url: URL): void => {
    const id = idOf(url.searchParams.get("id"));
    const key = id === null ? null : state.find(id);
    if (key === null) return sorry(request, response, 404, "There is no such key.");
    if (key.revokedAt !== null) return goTo(response, `/dashboard?revoked=${key.id}`);
    return sendPage(response, 200, confirmPage(app, key, now(), state.keys().at(-1)?.id === key.id));
  };

  const issue = (request: IncomingMessage, response: ServerResponse): void => {
    const { id, key } = state.issue();
    options.log({ type: "issued", id, call: "dashboard", answer: "" });
    if (wantsJson(request)) return sendJson(response, 200, { id, key });
    return goTo(response, `/dashboard/issued?ticket=${keepTicket(id, key)}`);
  };

  const revoke = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const id = await bodyId(request);
    if (id === null || !state.revoke(id)) return sorry(request, response, 404, "There is no such key.");
    options.log({ type: "revoked", id, call: "dashboard", answer: "" });
    if (wantsJson(request)) return sendJson(response, 200, state.find(id));
    return goTo(response, `/dashboard?revoked=${id}`);
  };

  type Handler = (request: IncomingMessage, response: ServerResponse, url: URL) => void | Promise<void>;
  const routes: Readonly<Record<string, { readonly get?: Handler; readonly post?: Handler }>> = {
    "/": { get: show },
    "/dashboard": { get: show },
    "/dashboard/issue": { post: issue },
    "/dashboard/issued": { get: showIssued },
    "/dashboard/revoke": { get: askRevoke, post: revoke },
  };

  return async (request: IncomingMessage, response: ServerResponse, url: URL): Promise<boolean> => {
    const route = Object.hasOwn(routes, url.pathname) ? routes[url.pathname] : undefined;
    if (route === undefined) return false;
    const post = request.method === "POST";
    const handler = post
      ? route.post
      : ["GET", "HEAD"].includes(request.method ?? "")
        ? route.get
        : undefined;
    if (handler === undefined) {
      sorry(request, response, 405, "That is not how this page is used.");
    } else if (post && !isOurs(request)) {
      options.log({ type: "refused", id: null, call: "dashboard", answer: "cross-site" });
      sorry(request, response, 403, "The request came from another site.");
    } else {
      await handler(request, response, url);
    }
    return true;
  };
};
