# Which file of a crate takes names from which: "FROM TO" lines of module paths, for the sources given as `src/...` paths from the
# crate's folder. Plain text is enough: `use` statements, and paths that begin with crate, self, super or a child's name. A re-export
# (`pub use`) hands a name on and takes nothing; tests may look at anything.
function parent(module) { return module ~ /::/ ? substr(module, 1, length(module) - length(tail(module)) - 2) : "" }
function tail(module, parts, n) { n = split(module, parts, "::"); return parts[n] }
function join(above, below) { return above == "" ? below : below == "" ? above : above "::" below }

# A path as it stands in the file of `from`.
function take(from, path, parts, n, i, at) {
    n = split(path, parts, "::")
    i = 1
    if (parts[1] == "crate") { at = ""; i = 2 }
    else if (parts[1] == "self") { at = from; i = 2 }
    else if (parts[1] == "super") for (at = from; parts[i] == "super"; i++) at = parent(at)
    else if (join(from, parts[1]) in text) at = from
    else return
    for (; i <= n && parts[i] != "self"; i++) at = join(at, parts[i])
    while (at != "" && !(at in text)) at = parent(at)
    if (at != "" && at != from && !((from, at) in seen)) { seen[from, at] = 1; print from, at }
}

# All paths of a `use`, its braces opened.
function open_braces(from, tree, before, inside, depth, part, i, c) {
    i = index(tree, "{")
    if (!i) { take(from, tree); return }
    before = substr(tree, 1, i - 1)
    inside = substr(tree, i + 1, length(tree) - i - 1) ","
    depth = 0; part = ""
    for (i = 1; i <= length(inside); i++) {
        c = substr(inside, i, 1)
        if (c == "," && depth == 0) { if (part != "") open_braces(from, before part); part = ""; continue }
        depth += (c == "{") - (c == "}")
        part = part c
    }
}

FNR == 1 {
    module = FILENAME
    sub(/^.*src\//, "", module); sub(/\.rs$/, "", module); sub(/\/mod$/, "", module)
    if (module == "lib" || module == "main") module = ""
    gsub(/\//, "::", module)
    text[module] = text[module] " "
    tests = 0
}
/^#\[cfg\(test\)\]/ { tests = 1 }
tests { next }
{ sub(/\/\/.*/, ""); text[module] = text[module] $0 "\n" }

END {
    for (from in text) {
        if (from == "") continue # the map of the crate
        rest = text[from]
        while (match(rest, /(^|\n) *(pub(\([a-z ]+\))? )?use [^;]*;/)) {
            statement = substr(rest, RSTART, RLENGTH)
            rest = substr(rest, 1, RSTART - 1) "\n" substr(rest, RSTART + RLENGTH)
            if (statement ~ /^\n* *pub/) continue
            sub(/^\n* *use /, "", statement); sub(/;$/, "", statement)
            gsub(/ as [A-Za-z_0-9]+/, "", statement); gsub(/[ \n]/, "", statement)
            open_braces(from, statement)
        }
        while (match(rest, /[A-Za-z_][A-Za-z_0-9]*(::[A-Za-z_][A-Za-z_0-9]*)+/)) {
            take(from, substr(rest, RSTART, RLENGTH))
            rest = substr(rest, RSTART + RLENGTH)
        }
    }
}
