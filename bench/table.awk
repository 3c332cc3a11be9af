# table.awk: from raw results to the table of ratios, or with -v rows_only=1 to the rows of draw.py's chart.
#
#   awk -f table.awk targets.tsv raw.tsv
#
# raw.tsv is what peers/lib.sh writes.  A ratio is taken round by round, heist over the
# other where lower is better and the other over heist where higher is, so that below 1
# heist is ahead; median (lowest-highest) over the rounds.  The best and the second-best
# rival are chosen by their medians; raw_c and raw_epoll are floors and stand apart.
BEGIN { FS = "\t" }
FILENAME == ARGV[1] { if ($0 !~ /^#/) target[$1, $2] = $4; next }
$5 == "@rss" { next }
$5 == "@busy" { value[$2 SUBSEP $3 SUBSEP "@busy", $1, $4] = $7 + 0; if ($4 + 1 > rounds) rounds = $4 + 1; next }
{
    key = $5 == "-" ? $2 : $2 "." $5
    who = $1
    # One peer's several ways to do the same work compete under the plain name.
    if (who !~ /^heist/ && match(key, /\.(cgo|go|chan|queue_work|suspend_resume)$/)) {
        who = who " " substr(key, RSTART + 1)
        key = substr(key, 1, RSTART - 1)
    }
    id = key SUBSEP $3
    if (who ~ /^heist@/) earlier = 1
    value[id, who, $4] = $7 + 0
    if ($4 + 1 > rounds) rounds = $4 + 1
    size[id, who] = $6
    if ($1 == "heist") {
        if (!(id in unit)) { row[++rows] = id; name[id] = key; workers[id] = $3; process[id] = $2 SUBSEP $3 SUBSEP "@busy" }
        unit[id] = $8
    } else if (!((id, who) in seen)) {
        seen[id, who] = 1
        others[id] = others[id] SUBSEP who
    }
}
function sortv(a, n,  i, j, x) {
    for (i = 2; i <= n; i++) { x = a[i]; for (j = i - 1; j >= 1 && a[j] > x; j--) a[j + 1] = a[j]; a[j + 1] = x }
}
function middle(a, n) { return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2 }
# Median over the rounds; sets low and high.
function summary(id, who,  a, n, k) {
    n = 0
    for (k = 0; k < rounds; k++) if ((id, who, k) in value) a[++n] = value[id, who, k]
    if (!n) return -1
    sortv(a, n); low = a[1]; high = a[n]
    return middle(a, n)
}
# The same of the ratio of heist's row to another's: -1 when no round has both.
function ratio(id, other_id, who,  a, n, k, x, y, t) {
    n = 0
    for (k = 0; k < rounds; k++) {
        if (!((id, "heist", k) in value) || !((other_id, who, k) in value)) continue
        x = value[id, "heist", k]; y = value[other_id, who, k]
        if (higher[id]) { t = x; x = y; y = t }
        if (y > 0) a[++n] = x / y
    }
    if (!n) return -1
    sortv(a, n); low = a[1]; high = a[n]
    return middle(a, n)
}
function grouped(x,  s, r) {
    s = sprintf("%.0f", x); r = ""
    while (length(s) > 3) { r = "," substr(s, length(s) - 2) r; s = substr(s, 1, length(s) - 3) }
    return s r
}
function number(x) { return x >= 1000 ? grouped(x) : sprintf("%.3g", x) }
function spread(m) { return number(m) " (" number(low) "-" number(high) ")" }
function spread_ratio(r) { return sprintf("%.2f (%.2f-%.2f)", r, low, high) }
# How many processors the whole process kept busy, start and end included.
function busy(id, who,  m) { m = summary(process[id], who); return m < 0 ? "" : sprintf("%.2f", m) }
function peer_of(who,  p) { split(who, p, " "); return p[1] }
function better(id, a, b) { return higher[id] ? a > b : a < b }
# The time of a whole tree says nothing about a tree of another size.
function incomparable(id, other_id, who) {
    return unit[id] == "ms" && name[id] !~ /overshoot/ && size[other_id, who] != size[id, "heist"]
}
# Sets best, second and floor to names, and their medians m[...], for a row.
function contend(id, other_id,  list, n, i, m, w) {
    best = second = floor_name = ""
    n = split(substr(others[other_id], 2), list, SUBSEP)
    for (i = 1; i <= n; i++) {
        w = list[i]
        med[w] = summary(other_id, w)
        if (med[w] < 0 || incomparable(id, other_id, w)) { med[w] = -1; continue }
        if (w ~ /^raw_/) { if (floor_name == "" || better(id, med[w], med[floor_name])) floor_name = w; continue }
        if (best == "" || better(id, med[w], med[best])) best = w
    }
    for (i = 1; i <= n; i++) {
        w = list[i]
        if (w ~ /^raw_/ || med[w] < 0 || peer_of(w) == peer_of(best)) continue
        if (second == "" || better(id, med[w], med[second])) second = w
    }
}
function cell(r, c, text) { table[r, c] = text; if (length(text) > width[c]) width[c] = length(text) }
function note_size(id, other_id, who) { return size[other_id, who] != size[id, "heist"] ? " n=" grouped(size[other_id, who]) : "" }
END {
    compared = 0
    for (i = 1; i <= rows; i++) if (others[row[i]] != "") compared = 1
    columns = split(earlier ? "workload|w|unit|heist|busy|before|ratio|busy" : compared ? "workload|w|unit|heist|busy|best rival|ratio|busy|second|ratio|bare C ratio|target|met" : "workload|w|unit|heist|busy", head, "|")
    for (c = 1; c <= columns; c++) cell(0, c, head[c])
    lines = 0; met = asked = behind = 0
    for (i = 1; i <= rows; i++) {
        id = row[i]
        higher[id] = unit[id] ~ /\/s$/
        if (name[id] ~ /\.serial$/) continue
        own = summary(id, "heist")
        if (unit[id] == "errors" && own == 0) continue
        lines++
        cell(lines, 1, name[id]); cell(lines, 2, workers[id]); cell(lines, 3, unit[id]); cell(lines, 4, spread(own)); cell(lines, 5, busy(id, "heist"))
        drawn[lines] = id
        if (!compared) continue
        other_id = id
        if (others[id] == "" && name[id] ~ /\.loop$/) { plain = name[id]; sub(/\.loop$/, "", plain); other_id = plain SUBSEP workers[id] }
        other[lines] = other_id
        contend(id, other_id)
        top[lines] = best; next_top[lines] = second; bare[lines] = floor_name
        if (best != "") {
            cell(lines, 6, best " " number(med[best]) note_size(id, other_id, best))
            cell(lines, 8, busy(id, peer_of(best)))
            r = ratio(id, other_id, best)
            if (r >= 0) cell(lines, 7, spread_ratio(r))
            if (!earlier && (name[id], workers[id]) in target) {
                asked++
                cell(lines, 12, target[name[id], workers[id]])
                cell(lines, 13, r >= 0 && r <= target[name[id], workers[id]] + 0 ? "yes" : "no")
                if (table[lines, 13] == "yes") met++
            }
        }
        if (second != "") {
            cell(lines, 9, second " " number(med[second]) note_size(id, other_id, second))
            r = ratio(id, other_id, second)
            if (r >= 0) cell(lines, 10, spread_ratio(r))
            if (r > 1) behind++
        }
        if (floor_name != "") { r = ratio(id, other_id, floor_name); if (r >= 0) cell(lines, 11, spread_ratio(r)) }
    }
    if (rows_only) print_rows(); else print_table()
}
function print_table(  l, c, text) {
    for (l = 0; l <= lines; l++) {
        text = ""
        for (c = 1; c <= columns; c++) text = text sprintf(c == columns ? "%s" : "%-" (width[c] + 2) "s", table[l, c])
        sub(/ +$/, "", text)
        print text
    }
    if (asked) printf "targets met: %d of %d; figures behind the second-best rival: %d\n", met, asked, behind
}
# For draw.py: what is drawn is a figure that has a rival; without -v all=1 only one that has a target.
function print_rows(  l, id, r) {
    for (l = 1; l <= lines; l++) {
        id = drawn[l]
        if (top[l] == "" || unit[id] == "errors" || (!all && !((name[id], workers[id]) in target))) continue
        r = ratio(id, other[l], top[l])
        if (r < 0) continue
        printf "%s\t%s\t%s\t%s\t%s\t%s\t%.3f\t%.3f\t%.3f\n", name[id], workers[id], unit[id], number(summary(id, "heist")),
            top[l], number(summary(other[l], top[l])), ratio(id, other[l], top[l]), low, high
    }
}
