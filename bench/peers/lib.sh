# peers/lib.sh: how a benchmark program is installed, built, run once and summed up.
# Sourced by bench/run and bench/peers/run; bash.
#
# In:  peers_src    this folder
#      peers_build  build folder; nothing is written into the source tree
#      port         first loopback TCP port of the servers, counted up
#      heist_command, revision_command   the programs of the peers `heist` and `heist@REV`
# Raw results are lines "peer workload workers round metric n value unit", separated by
# tabs; metric "@rss" is the peak of memory in KiB, "@busy" how many processors the process kept busy.

all_rivals="go tokio tokio-ct libuv boost_fiber boost_asio tbb asyncio uvloop nginx"
all_baselines="raw_c raw_epoll" # floors, not rivals
all_workloads="yield spawn_join spawn_many gather fib skynet pingpong ring pipeline queue select sleepers sleepers.callback timer_churn foreign_submit foreign_roundtrip quiet mutex blocked generator context stream accept echo http_hello"

say() { echo "bench: $*" >&2; }
has_word() { [[ " $2 " == *" $1 "* ]]; } # WORD LIST

# --- packages and build -------------------------------------------------------
install_packages() { # PEERS: asks only for what is missing
  local need=(gcc g++ libc6-dev) p missing=() sudo=()
  for p in $1; do
    case $p in
      go) need+=(golang-go) ;;
      tokio | tokio-ct) need+=(librust-tokio-dev librust-hyper-dev librust-libc-dev); command -v cargo >/dev/null || need+=(cargo) ;;
      libuv) need+=(libuv1-dev) ;;
      boost_*) need+=(libboost1.81-dev libboost-fiber1.81-dev libboost-context1.81-dev) ;;
      tbb) need+=(libtbb-dev) ;;
      asyncio | uvloop) need+=(python3 python3-uvloop) ;;
      nginx) need+=(nginx-light) ;;
    esac
  done
  has_word http_hello "$2" && need+=(wrk)
  for p in $(printf '%s\n' "${need[@]}" | sort -u); do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) == installed ]] || missing+=("$p")
  done
  ((${#missing[@]})) || return 0
  ((EUID)) && sudo=(sudo)
  say "installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq >&2
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2
}
version_of() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null | sed 's/^[0-9]*://; s/[-+].*//'; }

compile() { # OUTPUT SOURCE COMMAND...: skipped if the output is newer
  local out=$peers_build/$1 from=$peers_src/$2
  shift 2
  [[ $out -nt $from ]] && return 0
  "$@" -o "$out.new" "$from" "${libs[@]}" && mv "$out.new" "$out"
}
newer() { # PROGRAM SOURCE...: the program is newer than each of its sources
  local out=$peers_build/$1 from
  shift
  for from; do [[ $out -nt $peers_src/$from ]] || return 1; done
}
build_tokio() {
  local registry t=$peers_build/tokio-src
  registry=$(dpkg -L librust-tokio-dev | sed -n 's#\(.*/registry\)/tokio-[0-9.]*$#\1#p' | head -1)
  mkdir -p "$t/.cargo" && cp -r "$peers_src/tokio/Cargo.toml" "$peers_src/tokio/src" "$t/" || return 1
  printf '[source.crates-io]\nreplace-with = "debian"\n[source.debian]\ndirectory = "%s"\n' "$registry" >"$t/.cargo/config.toml"
  (cd "$t" && CARGO_TARGET_DIR=$t/target cargo build --offline --release -q) >&2 && cp "$t/target/release/tokio-bench" "$peers_build/"
}
build_peer() {
  local c=(gcc -O2 -flto=auto -Wall -Wextra) cxx=(g++ -O3 -flto=auto -DNDEBUG -Wall -Wextra) libs=(-lpthread)
  case $1 in
    load) compile echo_load load/echo_load.c "${c[@]}" && compile touch load/touch.c "${c[@]}" && compile limits limits/limits.c "${c[@]}" ;;
    raw_c) compile raw_c-bench raw_c/bench.c "${c[@]}" ;;
    raw_epoll) compile raw_epoll-bench epoll/epoll.c "${c[@]}" ;;
    go) (cd "$peers_src/go" && GOFLAGS=-mod=mod GOPROXY=off GOCACHE="$peers_build/go-cache" go build -buildvcs=false -o "$peers_build/go-bench" .) ;;
    tokio | tokio-ct) newer tokio-bench tokio/src/main.rs tokio/src/blocked.rs tokio/src/quiet.rs || build_tokio ;;
    libuv) libs=(-luv -lpthread); compile libuv-bench libuv/bench.c "${c[@]}" ;;
    boost_fiber) libs=(-lboost_fiber -lboost_context -lpthread); compile boost_fiber-bench boost_fiber/bench.cpp "${cxx[@]}" -std=c++17 ;;
    boost_asio) compile boost_asio-bench boost_asio/bench.cpp "${cxx[@]}" -std=c++20 ;;
    tbb) libs=(-ltbb -lpthread); compile tbb-bench tbb/bench.cpp "${cxx[@]}" -std=c++17 ;;
    asyncio | uvloop) command -v python3 >/dev/null ;;
    nginx) command -v nginx >/dev/null ;;
  esac
}
build_peers() { # PEERS: sets `peers` to those that were built
  local p
  mkdir -p "$peers_build" || return 1
  build_peer load || return 1
  peers=
  for p in $1; do
    if build_peer "$p"; then peers+=" $p"; else say "$p does not build here: left out"; fi
  done
  python=$(find_python)
}
find_python() { # the first python3 on PATH that can import uvloop
  local p
  for p in $(type -ap python3); do "$p" -c 'import uvloop' 2>/dev/null && { echo "$p"; return; }; done
  echo python3
}

# --- peers --------------------------------------------------------------------
label() {
  case $1 in
    go) echo "go-$(go version | sed 's/.*go\([0-9.]*\) .*/\1/')" ;;
    tokio*) echo "$1-$(sed -n '/^name = "tokio"$/{n;s/.*"\(.*\)"/\1/p}' "$peers_build/tokio-src/Cargo.lock")" ;;
    libuv) echo "libuv-$(version_of libuv1-dev)" ;;
    boost_*) echo "$1-$(version_of libboost1.81-dev)" ;;
    tbb) echo "tbb-$(version_of libtbb-dev)" ;;
    asyncio) echo "asyncio-$("$python" -c 'import platform; print(platform.python_version())')" ;;
    uvloop) echo "uvloop-$("$python" -c 'import uvloop; print(uvloop.__version__)')" ;;
    nginx) echo "nginx-$(version_of nginx-light)" ;;
    *) echo "$1" ;;
  esac
}
command_of() { # sets the array cmd
  case $1 in
    heist) cmd=("$heist_command") ;;
    heist@*) cmd=("$revision_command") ;;
    tokio-ct) cmd=("$peers_build/tokio-bench" --ct) ;;
    asyncio | uvloop) cmd=("$python" "$peers_src/asyncio/bench.py" "$1") ;;
    *) cmd=("$peers_build/$1-bench") ;;
  esac
}
workers_of() { # the worker counts of a peer and workload
  case $1:$2 in
    heist*:yield | heist*:timer_churn) echo 1 ;;
    heist*:pipeline | go:pipeline | tokio:pipeline) echo 1 2 8 ;;
    *:pipeline) ;;
    heist*:blocked | go:blocked | tokio:blocked) echo 1 2 8 ;;
    heist*) echo 1 2 ;;
    *:blocked) ;;
    go:quiet | tokio:quiet) echo 1 2 ;;
    *:quiet) ;;
    *:sleepers.callback) ;;
    raw_epoll:echo | raw_epoll:http_hello) echo 1 2 ;;
    raw_epoll:*) ;;
    raw_c:yield | raw_c:foreign_* | raw_c:echo | raw_c:http_hello) echo 1 ;;
    raw_c:stream) echo 1 2 ;;
    raw_c:*) ;;
    nginx:http_hello) echo 1 2 ;;
    nginx:*) ;;
    libuv:spawn_many) echo 1 2 ;;
    libuv:* | asyncio:* | uvloop:* | tokio-ct:*) echo 1 ;;
    boost_fiber:echo | boost_fiber:http_hello | tbb:echo | tbb:http_hello) ;;
    *:yield | *:timer_churn) echo 1 ;;
    *) echo 1 2 ;;
  esac
}
variants_of() { # server modes: MODE or MODE:METRIC-PREFIX
  case $1:$2 in
    asyncio:echo | uvloop:echo | heist*:echo) echo echo echo_streams:streams. ;;
    tokio:http_hello | tokio-ct:http_hello) echo http_hello http_hello_hyper:hyper. ;;
    *) echo "$2" ;;
  esac
}

# --- one run ------------------------------------------------------------------
touch_memory() { # before the first run of a workload that takes gigabytes
  case $1 in
    spawn_many | fib | skynet | sleepers* | foreign_submit) "$peers_build/touch" "${PEERS_TOUCH_GIB:-4}" ;;
  esac
}
append() { # LABEL WORKLOAD WORKERS ROUND OUT < protocol lines
  awk -F '\t' -v OFS='\t' -v p="$1" -v w="$2" -v k="$3" -v r="$4" '
    $1 == "R" { print p, w, k, r, $2, $3, $4, $5 }
    $1 == "B" { print p, w, k, r, "@busy", 0, $2, "processors" }
    $1 == "M" { print p, w, k, r, "@rss", 0, $2, "KiB" }' >>"$5"
}
run_once() { # PEER LABEL WORKLOAD WORKERS ROUND OUT; 3: the peer has no such workload
  local tmp=$peers_build/run.$$ rc
  command_of "$1"
  local TIMEFORMAT='%R %U %S'
  { time timeout -k 5 "${PEERS_TIMEOUT:-180}" "${cmd[@]}" "$3" "$4" 0 >"$tmp.out" 2>"$tmp.err"; } 2>"$tmp.time"
  rc=$?
  if ((rc == 0)); then
    awk -v OFS='\t' '{ print "B", ($1 + 0 ? ($2 + $3) / $1 : 0) }' "$tmp.time" >>"$tmp.out"
    append "$2" "$3" "$4" "$5" "$6" <"$tmp.out"
  elif ((rc != 3)); then
    say "$2 $3 workers=$4: exit $rc $(tail -1 "$tmp.err")"
  fi
  rm -f "$tmp.out" "$tmp.err" "$tmp.time"
  return $rc
}

family() { echo "$1"; [[ ! -r /proc/$1/task/$1/children ]] || tr ' ' '\n' <"/proc/$1/task/$1/children"; }
cpu_us() { # utime+stime of a process and its children
  local p t=0 l
  for p in $(family "$1"); do
    l=$(<"/proc/$p/stat") && l=${l##*) } && set -- $l && t=$((t + ${12} + ${13}))
  done
  echo $((t * 1000000 / $(getconf CLK_TCK)))
}
peak_kib() {
  local p
  for p in $(family "$1"); do sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/$p/status"; done | awk '{ s += $1 } END { print s + 0 }'
}
field() { sed -n "s/.*\b$1=\([0-9.]*\).*/\1/p" <<<"$2"; }

serve_once() { # PEER LABEL WORKLOAD WORKERS ROUND OUT CONNECTIONS
  local variant mode prefix pid line cpu c0 c1 tries rc=0 conns=$7
  for variant in $(variants_of "$1" "$3"); do
    mode=${variant%%:*} prefix=
    [[ $variant == *:* ]] && prefix=${variant#*:}
    port=$((port + 1))
    if [[ $1 == nginx ]]; then
      mkdir -p "$peers_build/nginx"
      sed "s/@WORKERS@/$4/; s/@PORT@/$port/" "$peers_src/nginx/nginx.conf.in" >"$peers_build/nginx/nginx.conf"
      nginx -p "$peers_build/nginx" -e error.log -c nginx.conf -g 'daemon off;' &
    else
      command_of "$1"
      "${cmd[@]}" "$mode" "$4" "$port" &
    fi
    pid=$!
    for ((tries = 0; tries < 100; tries++)); do (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.05; done
    if [[ $3 == echo ]]; then
      line=$(timeout 60 "$peers_build/echo_load" 127.0.0.1 "$port" "$conns" 64 1 5 "$pid")
      cpu=$(field cpu_us_per_req "$line")
    else
      c0=$(cpu_us "$pid")
      line=$(timeout 30 wrk -t1 -c"$conns" -d5s --latency -s "$peers_src/load/wrk_report.lua" "http://127.0.0.1:$port/" | grep '^REPORT')
      c1=$(cpu_us "$pid")
      cpu=$(awk -v d=$((c1 - c0)) -v r="$(field requests "$line")" 'BEGIN { print r ? d / r : 0 }')
    fi
    if [[ -n $line ]]; then
      {
        printf 'R\t%s\t%s\t%s\trequests/s\n' "${prefix}c$conns" "$conns" "$(field rps "$line")"
        printf 'R\t%s\t%s\t%s\tus\n' "${prefix}c$conns.p50" "$conns" "$(field p50_us "$line")"
        printf 'R\t%s\t%s\t%s\tus\n' "${prefix}c$conns.p99" "$conns" "$(field p99_us "$line")"
        printf 'R\t%s\t%s\t%s\tus\n' "${prefix}c$conns.p999" "$conns" "$(field p999_us "$line")"
        printf 'R\t%s\t%s\t%s\tus/request\n' "${prefix}c$conns.cpu" "$conns" "$cpu"
        printf 'R\t%s\t%s\t%s\terrors\n' "${prefix}c$conns.errors" "$conns" "$(field errors "$line")"
        printf 'M\t%s\n' "$(peak_kib "$pid")"
      } | append "$2" "$3" "$4" "$5" "$6"
    else
      say "$2 $mode workers=$4 connections=$conns: no result"
      rc=1
    fi
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
  done
  return $rc
}

# --- summing up ---------------------------------------------------------------
summarise() { # LABEL WORKLOAD WORKERS RAW: one JSON object for each figure
  awk -F '\t' -v peer="$1" -v workload="$2" -v workers="$3" '
    function sortv(a, n,  i, j, x) { for (i = 2; i <= n; i++) { x = a[i]; for (j = i - 1; j >= 1 && a[j] > x; j--) a[j + 1] = a[j]; a[j + 1] = x } }
    $1 != peer || $2 != workload || $3 != workers { next }
    $5 == "@busy" { busy[++b] = $7 + 0; next }
    $5 == "@rss" { rss[++r] = $7 + 0; next }
    { if (!($5 in cnt)) order[++m] = $5; v[$5, ++cnt[$5]] = $7 + 0; n[$5] = $6; unit[$5] = $8 }
    END {
      sortv(rss, r)
      sortv(busy, b)
      for (k = 1; k <= m; k++) {
        key = order[k]; c = cnt[key]
        for (i = 1; i <= c; i++) a[i] = v[key, i]
        sortv(a, c)
        med = c % 2 ? a[(c + 1) / 2] : (a[c / 2] + a[c / 2 + 1]) / 2
        name = key == "-" ? workload : workload "." key
        printf "{\"peer\":\"%s\",\"workload\":\"%s\",\"workers\":%d,\"n\":%d,\"value\":%.6g,\"unit\":\"%s\",\"min\":%.6g,\"max\":%.6g,\"runs\":%d,\"peak_rss_kib\":%d%s}\n",
          peer, name, workers, n[key], med, unit[key], a[1], a[c], c, rss[int((r + 1) / 2)], b ? sprintf(",\"processors\":%.3g", busy[int((b + 1) / 2)]) : ""
      }
    }' "$4"
}

# Runs every contender once in each round, so that a slow minute of the machine falls
# on all of them; each round begins with the next one.
run_rounds() { # CONTENDERS WORKLOAD WORKERS ROUNDS RAW; 1 if the first contender failed
  local all=($1) dropped=" " labels=() i k c peer conns rc failed=0
  for ((i = 0; i < ${#all[@]}; i++)); do labels[i]=$(label "${all[i]}"); done
  touch_memory "$2"
  for ((k = 0; k < $4; k++)); do
    for ((c = 0; c < ${#all[@]}; c++)); do
      i=$(((c + k) % ${#all[@]})) peer=${all[i]}
      [[ $dropped == *" $peer "* ]] && continue
      case $2 in
        echo | http_hello)
          rc=0
          for conns in 64 1000 $([[ $2 == echo ]] && echo 64+10000); do serve_once "$peer" "${labels[i]}" "$2" "$3" "$k" "$5" "$conns" || rc=1; done
          ;;
        *)
          run_once "$peer" "${labels[i]}" "$2" "$3" "$k" "$5"
          rc=$?
          ;;
      esac
      ((rc == 0)) && continue
      ((i == 0)) && failed=1
      dropped+="$peer "
    done
  done
  for ((i = 0; i < ${#all[@]}; i++)); do summarise "${labels[i]}" "$2" "$3" "$5"; done
  return $failed
}
