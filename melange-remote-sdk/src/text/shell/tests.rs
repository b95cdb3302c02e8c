//! Scripts that shells read, and scripts that none does.

use proptest::prelude::*;

use super::*;

/// What both grammars have, quoting and here-documents above all.
const POSIX: &str = r##"#!/bin/sh
# it's a "comment` (
a \
  b # it's one too
if true # if
then
  echo "a $(b "c" `d "e\`f\`"`) ${x:-"y z"} \"" 'q"' \' \" a#b
elif ! false; then :
else (a; b) && { c; } || { { d; } }
fi
if (a) then (b) fi >out 2>&1 3<&0 4>&- 5>|x
case $x in a | "b c"*) echo ;; (d) ;; *) if a; then b; fi
esac
case x in esac
x=$(case $y in a) echo b;; esac) y=`case $y in a) echo \`date\`;; esac`
for i do :; done
for i in a do b
do :; done
while read -r x; do echo "$x"; done <<-EOF | sort &
	it's "open" `too $( ${
	EOF
until false; do break; done
f() { cat; }
g () ( cd / )
echo $((1+(2*3))) $((a<<2)) $# $$ $! ${#} ${##} ${x#*(} "${x:-it's}" "${x%%'}'}" {a,b} } ]] then
cat <<A; cat <<'B' && echo "$(cat <<\C
C text `
C
)"
A text '
A
B text "
B
d=$(cat <<E
it's )
E
)
echo ${{ vars.x }} "${{inputs.a b}}" ${{x}}y
FOO=1 if=2 ls; echo if then fi
trap 'rm "$x"' EXIT"##;

const BASH: &str = r##"a=(1 "2 3" $(b) # )
 [5]=x) b+=(c); declare -A m=([k]=v ["a b"]='c')
if [[ $x =~ ^(a|b\ )+ && ( $y == @(x|y)* || ! -f "$z" ) ]] then :; fi
if (( a < 3 )) && ((b++)); then :; fi
for ((i=0; i<3; i++)); do :; done; for ((;;)) { break; }
select x in a b; do break; done
case $x in a) ;& b) ;;& +(c|d)) ;; esac
function f { :; }; function g() { :; } >x
diff <(sort a) <(sort b) > >(tee c); cmd &> f; cmd &>> g; cmd |& tee; cat <<< "a" {fd}>x
time -p { ls; }; time; ! ! a; coproc N { cat; }
echo $'it\'s' $"x" "${x//'"'/_}" ${x//\'/} $[1+(2)] !(a) *.@(b|c) $((a) )
((echo a); echo b)
function in_then_do_ { if a; then b; fi; }"##;

#[test]
fn shells_read_these() {
    for script in [POSIX, BASH, "", "\n# a\n", "a &", "f() echo a", "if a; then\n b\nf\\\ni", "a\\"] {
        assert_eq!(check(script), Ok(()), "{script}");
    }
    // A delimiter behind which a substitution ends, one at the end of backquotes, and one that a backslash joins.
    for script in
        ["x=$(cat <<E\na\nE)\n", "x=`cat <<E\na\nE`", "cat <<E\na\\\nE\nE", "if a; then\r\n b\r\nfi\r\n"]
    {
        assert_eq!(check(script), Ok(()), "{script}");
    }
}

/// Each is taken by bash or by dash, though not by both.
#[test]
fn what_only_one_shell_reads_is_let_through() {
    for script in [
        "a 2>&1>b",
        "a >&2>b",
        "a 2>&1</dev/null",
        "a <&3>b 4>&5 6>c",
        "a >&$(b 2>c)2>d",
        "arr=(!(q))",
        "arr=(x *(z) !(q)) b=($(! (a)) !(c))",
        "case x in !(a|b)) c ;; (!(d)|e) f ;; g|!(h)) ! (i); esac",
        "echo \"${x//'/b}\"",
        "echo \"${x^^'}${x,'}${x['}\"",
    ] {
        assert_eq!(check(script), Ok(()), "{script}");
    }
    let mistake = check("echo \"${x##'/b}\"").unwrap_err();
    assert_eq!(mistake.message, "the quote `'` is not closed");
    let mistake = check("a >1>b").unwrap_err();
    assert_eq!(mistake.message, "nothing follows `>`");
}

#[test]
fn delimiters_are_found_as_shells_find_them() {
    // The `fi` is there only when the text ends where it must.
    for (word, end) in [
        ("\"a\\b\"", "a\\b"),
        ("\"a\\$b\\\\c\"", "a$b\\c"),
        ("a\\b", "ab"),
        ("$'EOF'", "EOF"),
        ("$'EOF'", "$EOF"),
        ("$'E\\'F'", "E'F"),
        ("$\"EOF\"", "EOF"),
        ("$\"EOF\"", "$EOF"),
        ("EOF", "EO\\\nF"),
        ("EOF", "\\\nEOF"),
        ("EOF", "EOF\\\n"),
        ("-EOF", "\t\tE\\\nO\\\nF"),
        ("'EOF'", "\\\nEOF"),
        ("EOF\r", "EOF\r"),
        ("'EOF'\r", "EOF\r"),
    ] {
        let script = format!("if a; then\ncat <<{word}\n\"it's\n{end}\nfi\n");
        assert_eq!(check(&script), Ok(()), "{script}");
        let script = format!("if a; then\ncat <<{word}\nit\n{end}\n");
        assert!(check(&script).is_err(), "{script}");
    }
    for end in ["a\\\nEOF", "EOF\\", "EO\nF", "\tEOF\\\n"] {
        let script = format!("if a; then\ncat <<EOF\nb\n{end}\nfi\n");
        let mistake = check(&script).expect_err(&script);
        assert_eq!(
            (mistake.line, &*mistake.message),
            (2, "the here-document `EOF` is not closed"),
            "{script}"
        );
        assert_eq!(mistake.hint, "end it with a line that is `EOF` and nothing else", "{script}");
    }
}

/// Shells take what follows as its text, and at most warn.
#[test]
fn a_here_document_may_run_to_the_end() {
    for script in [
        "a\ncat <<EOF\nb\n",
        "cat <<EOF",
        "cat <<EOF\nif ( ' \n",
        "cat <<A; cat <<B\nx\nB\ny\n",
        "cat <<''\nx\n \n",
        "x=`cat <<EOF\na\n`",
        "cat <<EOF\r\na\nEOF\n",
        "cat <<EOF | sort\r\na\r\nEOF\r\n",
        "x=$(cat <<A)\nb\n",
        "cat <<EOF\nthe EOF\nEOF2\n",
    ] {
        assert_eq!(check(script), Ok(()), "{script}");
    }
    for script in ["cat <<EOF\nb\nEOF \n", "cat <<-'EOF'\nb\n \tEOF\n", "a=(b)\ncat <<EOF\n\tEOF\n"] {
        let mistake = check(script).expect_err(script);
        assert_eq!(mistake.message, "the here-document `EOF` is not closed", "{script}");
    }
}

/// All that is looked at costs steps, so that no script takes a time that grows with the square of its length.
#[test]
fn what_is_looked_at_again_and_again_costs_steps() {
    const LENGTH: usize = 200_000;
    let many = |part: &str| part.repeat(LENGTH / part.len());
    let half = |part: &str| part.repeat(LENGTH / 2 / part.len());
    for script in [
        format!("cat {}{}", half("<<A "), half("$((1)) ")),
        format!("cat <<{} {}", half("A"), half("$((1)) ")),
        many("x=$(cat <<A)\n"),
        many("$(a <<A\nA)\n"),
        many("${{ a "),
        format!("{}[{}", half("a"), half("=(x)")),
    ] {
        let mut scanner = Scanner::new(&script, Dialect::Bash);
        assert!(matches!(scanner.script(), Err(Stop::Undecided)), "{}", script.get(..20).unwrap());
        assert_eq!(check(&script), Ok(()));
    }
    // These are read to their end.
    for script in [many("`a`\n"), many("`a` "), many("cat <<A\nA\n"), many("a=(b) "), many("echo $((1))\n")] {
        let mut scanner = Scanner::new(&script, Dialect::Bash);
        assert!(scanner.script().is_ok(), "{}", script.get(..20).unwrap());
        let taken = STEPS_PER_BYTE_MAX * (script.len() + 1) - scanner.steps_left;
        assert!(taken < 4 * script.len(), "{}: {taken} steps", script.get(..20).unwrap());
    }
}

#[test]
fn no_shell_reads_these() {
    for (script, line, message) in [
        ("a\nif b; then\n  c \"x\n  d\nfi\n", 3, "the quote `\"` is not closed"),
        ("a 'b\n", 1, "the quote `'` is not closed"),
        ("a\nif b; then\n c\n\n", 2, "the `if` has no `fi`"),
        ("if b\n c\nfi", 1, "the `if` has no `then` before the `fi` in line 3 of the script"),
        (
            "for x in 1; do\n if a; then\n  b\ndone",
            2,
            "the `if` has no `fi` before the `done` in line 4 of the script",
        ),
        ("for x in 1 2\n a\ndone", 1, "the `for` has no `do`"),
        ("for x in 1 2 do\n a\ndone", 1, "the `do` of the `for` is one of its values"),
        ("while a; do\n b\n", 1, "the `while` has no `done`"),
        ("a\nfi", 2, "`fi` without `if` before it"),
        ("a\n}", 2, "`}` without `{` before it"),
        ("f() {\n a\n", 1, "the `{` has no `}`"),
        ("a\n(b\nc", 2, "the `(` is not closed"),
        ("a $(b\nc", 1, "the `$(` is not closed"),
        (
            "for x in 1; do\n a $(b\ndone",
            2,
            "the `$(` is not closed before the `done` in line 3 of the script",
        ),
        ("a `b\nc", 1, "the backquote is not closed"),
        ("x\na `b\nif c\n`", 3, "the `if` has no `then`"),
        ("x\na `b\nif c\nfi`", 3, "the `if` has no `then` before the `fi` in line 4 of the script"),
        ("a\nb ${c", 2, "the `${` is not closed"),
        ("a\nif b; then cat <<EOF\nb\nfi\n", 2, "the here-document `EOF` is not closed"),
        ("x=$(cat <<EOF\na\n)\n", 1, "the here-document `EOF` is not closed"),
        ("case a in\n b) c\n", 1, "the `case` has no `esac`"),
        ("case a in\n b) c ;;\n d\n e) ;;\nesac", 3, "the pattern `d` has no `)` behind it"),
        ("case a\n b) c ;;\nesac", 1, "the `case` has no `in`"),
        (
            "case a in\n b) if c; then d ;;\nesac",
            2,
            "the `if` has no `fi` before the `;;` in line 2 of the script",
        ),
        ("a\n;; b", 2, "`;;` without a command before it"),
        ("a\n| b", 2, "`|` without a command before it"),
        ("a &&\n\n", 1, "nothing follows `&&`"),
        ("a\nb >\nc", 2, "nothing follows `>`"),
        ("if a; then\n # b\nfi", 3, "there is no command before `fi`"),
        ("a\necho (b)", 2, "`(` where none can be"),
        ("{ a; } b", 1, "`b` where a command must have ended"),
        ("if [[ a == 'b']]; then\n c\nfi", 1, "the `[[` is not closed"),
        ("a=(b\nc", 1, "the list is not closed"),
        ("in", 1, "`in` without `for` or `case` before it"),
    ] {
        let mistake = check(script).expect_err(script);
        assert_eq!((mistake.line, mistake.message.as_str()), (line, message), "{script}");
    }
}

#[test]
fn an_indented_delimiter_is_named() {
    let mistake = check("a\ncat <<EOF\nb\n  EOF\nc\n").unwrap_err();
    assert_eq!((mistake.line, mistake.column), (2, 7));
    assert_eq!(mistake.hint, "line 4 of the script has blanks around `EOF`, where nothing else may stand");
}

#[test]
fn a_first_line_names_the_interpreter() {
    for shell in
        ["", "#!/bin/sh", "#! /bin/bash -e", "#!/usr/bin/env -S FOO=1 dash", "#!/bin/busybox sh", "# a"]
    {
        assert!(is_shell(shell), "{shell}");
    }
    for other in
        ["#!/usr/bin/python3", "#!/usr/bin/env perl", "#!/usr/bin/execlineb -P", "#!", "#!/bin/busybox awk"]
    {
        assert!(!is_shell(other), "{other}");
    }
}

/// Every line that closes something is taken away: the mistake is told where that something begins.
#[test]
fn what_is_not_closed_is_found_where_it_begins() {
    let script = "a\nif b; then\n c\nfi\nwhile d; do\n e\ndone\ncase f in\n g) h ;;\nesac\n\
                  i() {\n j\n}\n(k\n)\nl=$(m\n)\n{ cat <<N\n o\nN\n}\nt ${u\n}\nv `w\n`\n";
    assert_eq!(check(script), Ok(()));
    let closing = [
        ("fi", 2),
        ("done", 5),
        ("esac", 10),
        ("}", 11),
        (")", 14),
        (")", 16),
        ("N", 18),
        ("}", 18),
        ("}", 22),
        ("`", 24),
    ];
    let mut left = closing.iter();
    for (index, line) in script.lines().enumerate() {
        if closing.iter().any(|(word, _)| *word == line) {
            let (_, opened) = left.next().unwrap();
            let kept = script.lines().enumerate().filter(|(other, _)| *other != index);
            let broken: Vec<&str> = kept.map(|(_, line)| line).collect();
            let mistake = check(&broken.join("\n")).expect_err(line);
            assert_eq!(mistake.line, *opened, "without line {}: {mistake}", index + 1);
        }
    }
    assert!(left.next().is_none());
}

#[test]
fn nesting_without_end_is_let_through_in_time() {
    for part in [
        "(",
        "{ ",
        "$(",
        "((",
        "$((",
        "$(( $(",
        "`",
        "${x:-",
        "\"$(",
        "if a; then ",
        "a=(",
        "[[ ",
        "@(",
        "$[",
        "$((a ",
        "((a) ",
        "$((a) ",
        "a <<E ",
    ] {
        let script = part.repeat(20_000);
        let _ = check(&script);
        let _ = check(&format!("echo {script}"));
    }
}

proptest! {
    #[test]
    fn any_tokens_end(tokens in prop::collection::vec(
        prop::sample::select(vec![
            "if ", "then ", "fi ", "case ", "in ", "esac ", "for ", "do ", "done ", "{ ", "} ", "(", ")", "((", "))",
            "$(", "$((", "`", "\"", "'", "${", "}", "[[ ", "]] ", "<<E", "\nE\n", "<(", "a=(", ";", ";;", "&", "|",
            "\n", "\\", "é", "#", "a ", "!", "@(", "$'", "$[", "<<-'E' ", "function ", "coproc ", "time ", "${{",
        ]),
        0..60,
    )) {
        let script = tokens.concat();
        if let Err(mistake) = check(&script) {
            prop_assert!(mistake.line <= script.matches('\n').count() + 1);
        }
    }

    #[test]
    fn what_is_quoted_does_not_matter(text in "[a-z(){};|&<>$`\"# \\n\\\\]{0,40}") {
        let script = format!("echo '{text}'\ncat <<'E_O_F'\n{text}\nE_O_F\necho\n");
        prop_assert_eq!(check(&script), Ok(()));
    }
}
