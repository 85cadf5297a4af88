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

var dist = path.join(root, "dist");
/** Which of the caches: commands that turn to IMKIT need more of the program than those that look at what is here. */
var kind = process.argv.some(function (word) {
  return /^(adopt|confirm-revoked|doctor|rollback|rotate|serve|stage)$/.test(word);
})
  ? "work"
  : "look";

/**
 * One of our scripts as the build left it for this very Node: with what V8 compiled of it, so that nothing is compiled again. null = not
 * there. The cache lies beside the script and not in a temporary folder: one that another user could write to would be his code.
 */
function compiled(file) {
  try {
    var cache = fs.readFileSync(file + "." + kind + "." + process.version + "-" + process.arch + ".cache");
    var vm = require("node:vm");
    // The very text that scripts/warm.ts compiled.
    var text =
      "(function (exports, require, module, __filename, __dirname, __import) { " +
      fs.readFileSync(file, "latin1") +
      "\n});";
    var script = new vm.Script(text, { filename: file, cachedData: cache });
    return script.cachedDataRejected ? null : script.runInThisContext();
  } catch (_) {
    return null;
  }
}

function importAny(name) {
  return import(name);
}

/** `require` for our scripts, of which one may ask for another (`./name.cjs`). */
function requireOurs(id) {
  if (id.slice(0, 2) !== "./") return require(id);
  var file = path.join(dist, id);
  var run = compiled(file);
  if (run === null) return require(file);
  var module = { exports: {} };
  run(module.exports, requireOurs, module, file, dist, importAny);
  return module.exports;
}

function runInPlace() {
  var program = path.join(dist, "cli.cjs");
  if (!fs.existsSync(program)) {
    process.stderr.write(
      "imkit-rotator is not built yet (dist/cli.cjs is missing).\n" +
        "Do:  npm ci    or, without install scripts,  npm run build\n",
    );
    process.exit(2);
  }
  var run = compiled(program);
  if (run !== null) {
    run({}, requireOurs, {}, program, dist, importAny);
    return;
  }
  try {
    // The second best, for a Node that the build did not know: without what is compiled late.
    require("node:module").enableCompileCache(path.join(dist, ".compile-cache"));
  } catch (_) {
    // No cache, only slower.
  }
  require(program);
}

function runOn(node) {
  var args = process.execArgv.concat([__filename], process.argv.slice(2));
  var signals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"];
  // Before there is a child: a signal that comes meanwhile waits for it.
  signals.forEach(function (signal) {
    process.on(signal, function () {
      // Said, not sent: a terminal, or who stops a service, signals the child as well, and it tells the two ways apart (shell/signals.ts).
      if (child.connected) child.send({ signal: signal }, function () {});
    });
  });
  // The channel tells the child when this process is gone, so that a kill of the launcher ends both.
  var child = require("node:child_process").spawn(node, args, {
    stdio: ["inherit", "inherit", "inherit", "ipc"],
    env: Object.assign({}, process.env, { IMKIT_ROTATOR_LAUNCHED: "1" }),
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
      // After others were told of it: `run` has a command to end.
      setImmediate(function () {
        process.kill(process.pid, "SIGKILL");
      });
    });
    process.channel.unref();
  }
  runInPlace();
} else {
  var node = pinnedNode();
  if (node === null) wrongNode();
  else runOn(node);
}
