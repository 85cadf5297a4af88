#!/usr/bin/env node
"use strict";
// Old syntax on purpose: this file must run, and speak, on any Node that a machine may have.
var fs = require("node:fs");
var path = require("node:path");

var root = path.join(__dirname, "..");

/** engines: ^22.22.2 || >=24.15 */
function supported(version) {
  var parts = version.split(".").map(Number);
  var major = parts[0];
  var minor = parts[1];
  var patch = parts[2];
  if (major === 22) return minor > 22 || (minor === 22 && patch >= 2);
  return (major === 24 && minor >= 15) || major > 24;
}

function pinnedNode() {
  if (process.platform !== "linux") return null;
  var file = path.join(root, "node_modules", "node-linux-" + process.arch, "bin", "node");
  return fs.existsSync(file) ? file : null;
}

function runInPlace() {
  var built = path.join(root, "dist", "cli.js");
  if (!fs.existsSync(built)) {
    process.stderr.write(
      "imkit-rotator is not built yet (dist/cli.js is missing).\n" +
        "Do:  npm ci    or, without install scripts,  npm run build\n",
    );
    process.exit(2);
  }
  try {
    // Beside the program and not in /tmp: a cache that another user could write to would be his code.
    require("node:module").enableCompileCache(path.join(root, "dist", ".compile-cache"));
  } catch (_) {
    // No cache, only slower.
  }
  import(require("node:url").pathToFileURL(built).href);
}

function runOn(node) {
  var args = process.execArgv.concat([__filename], process.argv.slice(2));
  // The channel tells the child when this process is gone, so that a kill of the launcher ends both.
  var child = require("node:child_process").spawn(node, args, {
    stdio: ["inherit", "inherit", "inherit", "ipc"],
    env: Object.assign({}, process.env, { IMKIT_ROTATOR_LAUNCHED: "1" }),
  });
  var signals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"];
  signals.forEach(function (signal) {
    process.on(signal, function () {
      // A terminal sends Ctrl-C to the whole group; only a signal meant for us alone is passed on.
      if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
    });
  });
  child.on("error", function () {
    process.stderr.write("imkit-rotator: could not start " + node + "\n");
    process.exit(2);
  });
  child.on("exit", function (code, signal) {
    if (signal === null) process.exit(code);
    signals.forEach(function (name) {
      process.removeAllListeners(name);
    });
    process.kill(process.pid, signal);
  });
}

function wrongNode() {
  process.stderr.write(
    "imkit-rotator needs Node 22.22.2 or later 22, or 24.15 or later; this is " +
      process.versions.node +
      ".\nWays out:\n" +
      "  npm ci                     in its folder, on Linux: brings a pinned Node of its own\n" +
      "  npx -p node@24 -p imkit-rotator imkit-rotator ...\n" +
      "  the container image, see deploy/\n",
  );
  process.exit(2);
}

if (supported(process.versions.node)) {
  if (process.channel && process.env.IMKIT_ROTATOR_LAUNCHED === "1") {
    process.on("disconnect", function () {
      process.kill(process.pid, "SIGKILL");
    });
    process.channel.unref();
  }
  runInPlace();
} else {
  var node = pinnedNode();
  if (node === null) wrongNode();
  else runOn(node);
}
