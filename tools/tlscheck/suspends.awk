# Reads the public headers and prints the functions that may suspend, as C strings.
#
# What a comment says of "Suspends:" holds for the functions declared below it, up to the
# next comment that says it again, that names a Context of its own (no word on suspending
# means never), or that stands behind an empty line.
function comment_ended(text) {
    if (text ~ /Suspends: +(may|always)/)
        suspends = 1
    else if (text ~ /Suspends:|Context:/ || apart)
        suspends = 0
    apart = 0
}
FNR == 1 { suspends = 0; comment = ""; inside = 0; open = 0; apart = 1 }
inside {
    comment = comment " " $0
    if (/\*\//) { inside = 0; comment_ended(comment) }
    next
}
/^[ \t]*\/\*/ {
    comment = $0
    if (/\*\//) comment_ended(comment); else inside = 1
    next
}
/^[ \t]*$/ { apart = 1; next }
/^[ \t]*#/ { next }
{ gsub(/\/\*[^*]*\*\//, "") }
/HEIST_API/ { open = 1; text = "" }
open { text = text " " $0 }
open && /;/ {
    open = 0
    if (apart) suspends = 0 # a declaration on its own, behind an empty line
    sub(/.*HEIST_API/, "", text)
    if (suspends && match(text, /heist_[a-z0-9_]+[ \t]*\(/)) {
        name = substr(text, RSTART, RLENGTH)
        gsub(/[ \t(]/, "", name)
        printf "\"%s\",\n", name
    }
}
