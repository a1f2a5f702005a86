//! Catalogues that are right, and everything else.

use proptest::prelude::*;

use super::diff::differences;
use super::*;
use crate::domain::role::RoleName;

/// The example and the five products.
const GOOD: [(&str, &str); 6] = [
    ("example", EXAMPLE),
    ("quizmarker", include_str!("../../../tests/scenarios/quizmarker.toml")),
    ("mercura", include_str!("../../../tests/scenarios/mercura.toml")),
    ("timetracker", include_str!("../../../tests/scenarios/timetracker.toml")),
    ("toolboxai", include_str!("../../../tests/scenarios/toolboxai.toml")),
    ("smartmaintenance", include_str!("../../../tests/scenarios/smartmaintenance.toml")),
];

fn problems(text: &str) -> Vec<Problem> {
    Definition::parse(text).expect_err("a mistake")
}

#[test]
fn the_example_and_the_five_products_are_catalogues() {
    for (name, text) in GOOD {
        let read = Definition::parse(text).unwrap_or_else(|wrong| panic!("{name}: {wrong:?}"));
        assert_eq!(differences(&read, &read), []);
    }
    let example = Definition::parse(EXAMPLE).unwrap();
    assert_eq!(example.plans["free"].limits["quizzes"].limit, 100);
    assert!(!example.plans["enterprise"].limits.contains_key("quizzes"));
}

#[test]
fn mistakes_are_named_with_their_line() {
    let line_of = |needle: &str| EXAMPLE.lines().position(|line| line.contains(needle)).expect("a line") + 1;
    for (from, to, says) in [
        ("default_plan = \"free\"", "default_plan = \"nix\"", "nix"),
        ("unit = \"quizzes\"", "unti = \"quizzes\"", "unti"),
        ("quizzes = 100", "quizzes = -1", "2^53"),
        ("quizzes = 100", "quizzes = \"many\"", "whole number"),
        ("quizzes = 100", "quizes = 100", "no such metric"),
    ] {
        let line = line_of(from);
        let found = problems(&EXAMPLE.replacen(from, to, 1));
        assert!(found.iter().any(|p| p.line == line && p.reason.contains(says)), "{to}: {found:?}");
    }
    let found = problems("default_plan = \"a\"\n[plans.a\n");
    assert_eq!(found[0].line, 2, "{found:?}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = r#"
default_plan = "free"
notice_days = [1, 7]
[metrics.members]
unit = ""
[features]
Chat = "upper case"
[permissions]
"tenant.read" = "ours"
"quizzes" = "no verb"
[roles.boss]
rank = 2
permissions = ["quizzes.mark", "billing.record", "members.*"]
[roles.helper]
rank = 2
includes = "nobody"
[plans.free]
price = { month = 100 }
seats = 0
features = ["chat"]
trial = { days = 0, then = { downgrade = "free" } }
limits = { quizzes = 1 }
[templates.one]
plan = "two"
[settings]
time_zone = "Mars"
"#;
    let found = problems(text);
    for (line, says) in [
        (3, "largest first"),
        (4, "built in"),
        (5, "1 to 64 characters"),
        (7, "names are"),
        (9, "already"),
        (10, "noun.verb"),
        (13, "quizzes.mark"),
        (13, "billing.record"),
        (16, "nobody"),
        (18, "currency"),
        (19, "at least 1"),
        (20, "no feature"),
        (21, "1 to 365"),
        (21, "same plan"),
        (22, "no such metric"),
        (24, "no plan"),
        (26, "time_zone"),
    ] {
        assert!(found.iter().any(|p| p.line == line && p.reason.contains(says)), "line {line}: {says}: {found:#?}");
    }
}

#[test]
fn roles_include_others_and_hold_permissions_one_by_one() {
    let (_, text) = GOOD[4];
    let read = Definition::parse(text).unwrap();
    let names: Vec<&str> = read.roles.descending().map(|role| role.name.as_str()).collect();
    assert_eq!(names, ["admin", "teacher", "student"]);
    assert!(read.roles.permissions(&RoleName::new("admin")).contains("tenant.delete"));
    assert!(!read.roles.permissions(&RoleName::new("admin")).contains("billing.record"));
    assert!(!read.roles.permissions(&RoleName::new("student")).contains("settings.update"));
    let wild = read.roles.permissions(&RoleName::new("admin")).names();
    assert!(wild.iter().all(|name| !name.contains('*')), "{wild:?}");
}

#[test]
fn a_difference_has_its_path_and_both_values() {
    let before = Definition::parse(EXAMPLE).unwrap();
    let after = Definition::parse(&EXAMPLE.replacen("quizzes = 100", "quizzes = 120", 1)).unwrap();
    let found = differences(&before, &after);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, "plans.free.limits.quizzes.limit");
    assert_eq!((found[0].before.as_str(), found[0].after.as_str()), ("100", "120"));
}

/// A good catalogue with something done to it.
fn mangled() -> impl Strategy<Value = String> {
    let change = prop_oneof![
        any::<u8>().prop_map(|byte| (0_u8, byte, String::new())),
        "[a-z0-9_.=\"\\[\\]{} \n-]{0,12}".prop_map(|text| (1_u8, 0, text)),
        any::<u8>().prop_map(|byte| (2_u8, byte, String::new())),
        any::<u8>().prop_map(|byte| (3_u8, byte, String::new())),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), change), 1..6);
    (0..GOOD.len(), changes).prop_map(|(which, changes)| {
        let mut text: Vec<char> = GOOD[which].1.chars().collect();
        for (index, (kind, byte, insert)) in changes {
            if text.is_empty() {
                break;
            }
            let at = index.index(text.len());
            match kind {
                0 => text[at] = char::from(byte),
                1 => drop(text.splice(at..at, insert.chars())),
                2 => drop(text.drain(at..(at + usize::from(byte)).min(text.len()))),
                _ => {
                    let line: Vec<char> = text[at..].iter().copied().take_while(|c| *c != '\n').collect();
                    text.splice(at..at, line);
                }
            }
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_to_a_catalogue_it_reads_or_says_where_it_does_not(text in mangled()) {
        match Definition::parse(&text) {
            Ok(read) => prop_assert!(read.plans.contains_key(&read.default_plan)),
            Err(wrong) => {
                prop_assert!(!wrong.is_empty() && wrong.len() <= 50);
                let lines = text.split('\n').count();
                prop_assert!(wrong.iter().all(|p| p.line <= lines && !p.reason.is_empty()), "{:?}", wrong);
            }
        }
    }

    #[test]
    fn no_text_makes_the_reader_fail(text in any::<String>()) {
        let _ = Definition::parse(&text);
    }
}
