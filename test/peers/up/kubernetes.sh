#!/usr/bin/env bash
# A real etcd and kube-apiserver, built once from Go modules (kubernetes/go.mod and go.sum pin them), RBAC on, on free loopback ports.
#   kubernetes.sh install                                    builds what is missing into the cache; about 11 minutes of processor time
#   kubernetes.sh start DIR [--controllers] [--owner PID]    install, start, wait until healthy, write DIR/peer.json
#   kubernetes.sh stop DIR                                   ends exactly what DIR/pids records (pid and start time must match)
# --controllers adds controller-manager, scheduler and kwok (nodes without machines). --owner ends all of it when that process is gone.
# Needs go, curl, openssl, python3. Cache: $PEERS_CACHE, else imkit-rotator-peers in $XDG_CACHE_HOME or ~/.cache.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
CACHE="${PEERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/imkit-rotator-peers}/kubernetes"
VERSION=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' "$HERE/kubernetes/go.mod")
BIN="$CACHE/$VERSION-$(cat "$HERE/kubernetes/go.mod" "$HERE/kubernetes/go.sum" | sha256sum | head -c 12)"
say() { echo "[kubernetes] $*" >&2; }
die() { say "FAILED: $*"; exit 1; }
# Start time of a pid: guards against a number that was given again. A zombie is gone.
born_of() { awk '{sub(/^.*\) /,""); print ($1 == "Z" ? "gone" : $20)}' "/proc/$1/stat" 2> /dev/null || echo gone; }

build() {
  [ -e "$BIN/.done" ] && return
  local work="$CACHE/build" short=${VERSION#v} x=k8s.io/component-base/version t0
  say "building Kubernetes $VERSION and kwok: some minutes, 5 GB while it builds, 400 MB kept"
  t0=$(date +%s)
  rm -rf "$work"; mkdir -p "$work/src" "$BIN"
  cp "$HERE/kubernetes/go.mod" "$HERE/kubernetes/go.sum" "$work/src/"
  (
    cd "$work/src"
    export GOMODCACHE="$work/mod" GOCACHE="$work/cache" GOFLAGS="-modcacherw -buildvcs=false -mod=readonly" CGO_ENABLED=0 GOTOOLCHAIN=local
    # A server that does not know its version is not understood by clients.
    go build -trimpath -o "$BIN/" -ldflags "-s -w -X $x.gitVersion=$VERSION -X $x.gitMajor=${short%%.*} -X $x.gitMinor=$(cut -d. -f2 <<< "$short") \
      -X $x.gitCommit=0000000000000000000000000000000000000000 -X $x.gitTreeState=clean -X $x.buildDate=2026-01-01T00:00:00Z" tool >&2
    mv "$BIN/server" "$BIN/etcd"
  )
  rm -rf "$work"
  touch "$BIN/.done"
  say "built in $(( $(date +%s) - t0 )) s"
}
# Two may want it at once: the second waits for the first.
install() { mkdir -p "$CACHE"; exec 9> "$CACHE/.lock"; flock 9; build; exec 9>&-; }

stop() {
  local name pid born end list=${2:-}
  if [ -s "$1/pids" ]; then list=$(tac "$1/pids"); fi
  # The newest first: controllers before the API server before etcd.
  while read -r name pid born; do
    if [ -n "$pid" ] && [ "$(born_of "$pid")" = "$born" ]; then kill -TERM "$pid" 2> /dev/null || true; fi
  done <<< "$list"
  end=$(( $(date +%s) + 2 ))
  while read -r name pid born; do
    while [ -n "$pid" ] && [ "$(born_of "$pid")" = "$born" ] && [ "$(date +%s)" -lt "$end" ]; do sleep 0.1; done
    if [ -n "$pid" ] && [ "$(born_of "$pid")" = "$born" ]; then kill -KILL "$pid" 2> /dev/null || true; fi
  done <<< "$list"
  rm -f "$1/pids"
}
# Until the owner or the folder is gone.
watch() {
  local list; list=$(tac "$1/pids")
  while [ "$(born_of "$2")" = "$3" ] && [ -e "$1/pids" ]; do sleep 1; done
  stop "$1" "$list"
}

bg() {
  local name=$1; shift
  setsid "$@" > "$STATE/$name.log" 2>&1 < /dev/null 9>&- &
  sleep 0.05
  echo "$name $! $(born_of $!)" >> "$STATE/pids"
}
wait_ok() {
  local name=$1 seconds=$2 pid born end; shift 2
  read -r _ pid born < <(grep "^$name " "$STATE/pids")
  end=$(( $(date +%s) + seconds ))
  until "$@" > /dev/null 2>&1; do
    [ "$(born_of "$pid")" = "$born" ] || { tail -n 15 "$STATE/$name.log" >&2; die "$name ended"; }
    [ "$(date +%s)" -lt "$end" ] || { tail -n 15 "$STATE/$name.log" >&2; die "$name is not healthy after $seconds s"; }
    sleep 0.1
  done
}
certificate() {
  openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  printf '%b\n' "$3" > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile "$1.ext" -out "$1.crt" 2> /dev/null
}
pki() {
  cd "$1"
  openssl ecparam -name prime256v1 -genkey -noout -out ca.key
  openssl req -x509 -new -key ca.key -subj /CN=peers-ca -days 30 -out ca.crt -addext keyUsage=critical,keyCertSign,cRLSign 2> /dev/null
  certificate apiserver /CN=kube-apiserver "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc,IP:10.0.0.1\nextendedKeyUsage=serverAuth"
  certificate admin /O=system:masters/CN=admin extendedKeyUsage=clientAuth
  openssl genrsa -out sa.key 2048 2> /dev/null
  openssl rsa -in sa.key -pubout -out sa.pub 2> /dev/null
}
kubeconfig() {
  echo "{clusters: [{name: peers, cluster: {server: '$URL', certificate-authority: '$P/ca.crt'}}], users: [{name: me, user: {token: '$1'}}],
  contexts: [{name: peers, context: {cluster: peers, user: me}}], current-context: peers}"
}
free_ports() {
  python3 -c 'import socket, sys
s = [socket.socket() for _ in range(int(sys.argv[1]))]
[x.bind(("127.0.0.1", 0)) for x in s]
print(*[x.getsockname()[1] for x in s])' "$1"
}

done_or_stop() { [ "$1" -eq 0 ] || stop "$STATE"; }
start() {
  local controllers=no owner="" t0 etcd_port peer_port api_port manager_port scheduler_port admin parts
  STATE=$1; shift
  while [ $# -gt 0 ]; do
    case $1 in
      --controllers) controllers=yes ;;
      --owner) owner=$2; shift ;;
      *) die "unknown option $1" ;;
    esac
    shift
  done
  mkdir -p "$STATE"; STATE="$(cd "$STATE" && pwd)"; P="$STATE/pki"
  [ ! -e "$STATE/pids" ] || die "$STATE is in use: stop it first"
  t0=$(date +%s%3N)
  : > "$STATE/pids"
  trap 'done_or_stop $?' EXIT
  read -r etcd_port peer_port api_port manager_port scheduler_port < <(free_ports 5)
  URL="https://127.0.0.1:$api_port"
  umask 077
  mkdir -p "$P"; ( pki "$P" )
  admin=$(openssl rand -hex 16); parts=$(openssl rand -hex 16)
  printf '%s,admin,admin,"system:masters"\n%s,peers-internal,peers-internal,"system:masters"\n' "$admin" "$parts" > "$P/tokens.csv"
  kubeconfig "$admin" > "$STATE/admin.kubeconfig"
  kubeconfig "$parts" > "$STATE/internal.kubeconfig"
  # Who called what, without bodies: an independent witness of each call, made or refused.
  cat > "$STATE/audit-policy.yaml" << 'Y'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: [peers-internal, "system:apiserver"]}
- {level: None, userGroups: ["system:serviceaccounts:kube-system"]}
- {level: None, nonResourceURLs: ["/readyz*", "/livez*", "/openapi*"]}
- {level: Metadata}
Y
  local etcd="http://127.0.0.1:$etcd_port" peer="http://127.0.0.1:$peer_port"
  bg etcd "$BIN/etcd" --name peers --data-dir "$STATE/etcd" --listen-client-urls "$etcd" --advertise-client-urls "$etcd" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "peers=$peer" --unsafe-no-fsync --log-level warn
  # The usual endpoint reconciler refuses a loopback address and ends the server.
  bg kube-apiserver "$BIN/kube-apiserver" --etcd-servers="$etcd" --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --endpoint-reconciler-type=none \
    --secure-port="$api_port" --tls-cert-file="$P/apiserver.crt" --tls-private-key-file="$P/apiserver.key" --client-ca-file="$P/ca.crt" \
    --token-auth-file="$P/tokens.csv" --authorization-mode=RBAC --anonymous-auth=false --disable-admission-plugins=TaintNodesByCondition \
    --service-cluster-ip-range=10.0.0.0/24 --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$P/sa.pub" \
    --service-account-signing-key-file="$P/sa.key" --audit-policy-file="$STATE/audit-policy.yaml" --audit-log-path="$STATE/audit.jsonl"
  api() { curl -sf --cacert "$P/ca.crt" -H "Authorization: Bearer $parts" "$@"; }
  wait_ok kube-apiserver 60 api "$URL/readyz"
  if [ $controllers = yes ]; then
    local internal="$STATE/internal.kubeconfig"
    local common=(--kubeconfig="$internal" --authentication-kubeconfig="$internal" --authorization-kubeconfig="$internal" --bind-address=127.0.0.1
      --leader-elect=false --kube-api-qps=500 --kube-api-burst=1000)
    bg kube-controller-manager "$BIN/kube-controller-manager" "${common[@]}" --secure-port="$manager_port" \
      --service-account-private-key-file="$P/sa.key" --root-ca-file="$P/ca.crt" --use-service-account-credentials=true \
      --controllers=deployment-controller,replicaset-controller,statefulset-controller,daemonset-controller,job-controller,cronjob-controller,ttl-after-finished-controller,namespace-controller,serviceaccount-controller,serviceaccount-token-controller,root-ca-certificate-publisher-controller,garbage-collector-controller,pod-garbage-collector-controller,endpointslice-controller,disruption-controller,legacy-serviceaccount-token-cleaner-controller,clusterrole-aggregation-controller
    bg kube-scheduler "$BIN/kube-scheduler" "${common[@]}" --secure-port="$scheduler_port"
    bg kwok env HOME="$STATE" "$BIN/kwok" --kubeconfig="$internal" -c "$HERE/kubernetes/stages.yaml" --manage-all-nodes=true --node-ip=127.0.0.1 \
      --cidr=10.244.0.0/16 --node-lease-duration-seconds=40
    local node
    for node in kwok-0 kwok-1; do
      api -o /dev/null -X POST -H 'content-type: application/json' "$URL/api/v1/nodes" \
        -d "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"$node\",\"labels\":{\"kubernetes.io/hostname\":\"$node\",\"kubernetes.io/os\":\"linux\",\"kubernetes.io/arch\":\"amd64\"}}}"
    done
    ready() {
      local node
      for node in kwok-0 kwok-1; do
        api "$URL/api/v1/nodes/$node" | python3 -c 'import json, sys
d = json.load(sys.stdin)
up = any(c["type"] == "Ready" and c["status"] == "True" for c in d["status"].get("conditions", []))
sys.exit(not up or any(t["key"].startswith("node.kubernetes.io/") for t in d["spec"].get("taints", [])))' || return 1
      done
      api -o /dev/null "$URL/api/v1/namespaces/default/serviceaccounts/default"
    }
    wait_ok kwok 60 ready
  fi
  if [ -n "$owner" ]; then
    setsid bash "${BASH_SOURCE[0]}" watch "$STATE" "$owner" "$(born_of "$owner")" > /dev/null 2>&1 < /dev/null 9>&- &
  fi
  printf '{"server":"%s","caFile":"%s","kubeconfig":"%s","adminToken":"%s","clientCert":"%s","clientKey":"%s","audit":"%s","version":"%s","startMs":%d}\n' \
    "$URL" "$P/ca.crt" "$STATE/admin.kubeconfig" "$admin" "$P/admin.crt" "$P/admin.key" "$STATE/audit.jsonl" "$VERSION" \
    "$(( $(date +%s%3N) - t0 ))" > "$STATE/peer.json"
  say "up in $(( $(date +%s%3N) - t0 )) ms"
}

case "${1:-}" in
  install) install ;;
  start) [ $# -ge 2 ] || die "start DIR"; install; start "${@:2}" ;;
  watch) watch "${@:2}" ;;
  stop) [ $# -eq 2 ] || die "stop DIR"; stop "$2" ;;
  *) sed -n '2,7s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
