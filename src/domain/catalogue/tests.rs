//! What is wrong in a file is found, all at once and where it is; and nothing that anybody writes makes the reading panic.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::domain::role::{RoleName, RoleNames};

/// Catalogues that are right.
const GOOD: [&str; 6] = [
    EXAMPLE,
    include_str!("../../../tests/scenarios/quizmarker.toml"),
    include_str!("../../../tests/scenarios/mercura.toml"),
    include_str!("../../../tests/scenarios/timetracker.toml"),
    include_str!("../../../tests/scenarios/toolboxai.toml"),
    include_str!("../../../tests/scenarios/smartmaintenance.toml"),
];

const MINIMAL: &str = "default_plan = \"free\"\n[plans.free]\n";

fn good(text: &str) -> Definition {
    Definition::parse(text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// Line, path and reason of each problem.
fn problems(text: &str) -> Vec<(usize, String, String)> {
    let problems = Definition::parse(text).expect_err("a problem");
    problems.into_iter().map(|problem| (problem.line, problem.path, problem.reason)).collect()
}

/// Asserts that a file has exactly this problem.
#[track_caller]
fn assert_problem(text: &str, line: usize, path: &str, reason: &str) {
    let found = problems(text);
    assert!(found.len() == 1, "{text}\n{found:#?}");
    let (at, of, why) = &found[0];
    assert!((*at, of.as_str()) == (line, path) && why.contains(reason), "{text}\n{found:#?}");
}

#[test]
fn the_example_and_all_scenarios_are_right() {
    for text in GOOD {
        let definition = good(text);
        assert!(definition.diff(&definition.clone()).is_empty());
    }
    let example = good(EXAMPLE);
    assert_eq!(example.plans["free"].limits["quizzes"].limit, 100);
    assert_eq!(example.plans["pro"].limits["api_calls"].limit, 1_000_000);
    assert!(example.plans["free"].trial.is_none() && example.plans["free"].shortest_cycle().is_none());
    assert_eq!(example.plans["enterprise"].features, ["exports", "sso"]);
    assert_eq!(good(GOOD[3]).roles.top().name.as_str(), "admin");
    assert_eq!(good(GOOD[4]).features.len(), 15);
}

#[test]
fn roles_include_others_and_hold_permissions_one_by_one() {
    let roles = good(GOOD[4]).roles;
    let names: Vec<&str> = roles.descending().map(|role| role.name.as_str()).collect();
    assert_eq!(names, ["admin", "teacher", "student"]);
    let of = |name: &str| roles.permissions_of(&RoleNames::one(RoleName::new(name)));
    assert!(of("admin").contains("tenant.delete") && !of("admin").contains("billing.record"));
    assert!(of("teacher").contains("classes.attend") && !of("student").contains("settings.update"));
    assert!(of("admin").names().iter().all(|name| !name.contains('*')), "{:?}", of("admin"));
}

#[test]
fn all_problems_are_told_at_once_each_with_its_line() {
    let text = "\
default_plan = \"fre\"
[metrics.quizzes]
unti = \"quizzes\"
[metrics.calls]
unit = 5
[metrics.members]
unit = \"members\"
[plans.free]
seats = 0
trial = { days = 0, then = \"stop\" }
[plans.free.limits]
quizzes = \"many\"
calls = 1
tokens = 3
[plans.pro]
price = { month = 100 }
currency = \"euro\"
colour = \"red\"
[[rpc_rates]]
method = \"AuthService/Login\"
per = \"nobody\"
count = 1
seconds = 1
";
    let found = problems(text);
    let at: Vec<(usize, &str)> = found.iter().map(|(line, path, _)| (*line, path.as_str())).collect();
    for expected in [
        (1, "default_plan"),
        (3, "metrics.quizzes.unti"),
        (5, "metrics.calls.unit"),
        (6, "metrics.members"),
        (9, "plans.free.seats"),
        (10, "plans.free.trial.then"),
        (12, "plans.free.limits.quizzes"),
        (14, "plans.free.limits.tokens"),
        (17, "plans.pro.currency"),
        (18, "plans.pro.colour"),
        (21, "rpc_rates[0].per"),
    ] {
        assert!(at.contains(&expected), "{expected:?}\n{found:#?}");
    }
}

#[test]
fn each_rule_is_seen_to_be_broken() {
    let with = |rest: &str| format!("{MINIMAL}{rest}");
    for (rest, line, path, reason) in [
        ("[metrics.Bad]\nunit = \"x\"", 3, "metrics.Bad", "names are"),
        ("[metrics.x]\nunit = \"\"", 4, "metrics.x.unit", "must say"),
        ("[metrics.x]\nunit = \"x\"\nkind = \"heap\"", 5, "metrics.x.kind", "there is no `heap`"),
        ("[metrics.x]\nkind = \"gauge\"", 3, "metrics.x", "`unit` is missing"),
        ("[features]\nBad = \"\"", 4, "features.Bad", "names are"),
        ("[permissions]\n\"quizzes\" = \"\"", 4, "permissions.quizzes", "noun.verb"),
        ("[permissions]\n\"members.read\" = \"\"", 4, "permissions.\"members.read\"", "tenantry's own"),
        ("[permissions]\n\"usage.correct\" = \"\"", 4, "permissions.\"usage.correct\"", "tenantry's own"),
        ("[permissions]\nquizzes.mark = \"\"", 4, "permissions.quizzes", "quotation marks"),
        ("features = [\"x\"]", 3, "plans.free.features[0]", "there is no feature"),
        ("includes = \"x\"", 3, "plans.free.includes", "there is no plan"),
        ("includes = \"free\"", 3, "plans.free.includes", "circle"),
        ("grace_days = 366", 3, "plans.free.grace_days", "0 to 365"),
        ("usage_retention_days = 0", 3, "plans.free.usage_retention_days", "1 to 3660"),
        ("usage_retention_days = 3661", 3, "plans.free.usage_retention_days", "1 to 3660"),
        ("grace_days = -1", 3, "plans.free.grace_days", "whole number from 0"),
        ("seats = -1", 3, "plans.free.seats", "1 to 2^53"),
        ("price = { month = 5 }", 3, "plans.free.price", "currency"),
        ("currency = \"EUR\"\nprice = { month = -5 }", 4, "plans.free.price.month", "0 to 2^53"),
        ("trial = { days = 366, then = \"suspend\" }", 3, "plans.free.trial.days", "1 to 365"),
        ("trial = { days = 1, then = { downgrade = \"x\" } }", 3, "plans.free.trial.then", "there is no plan"),
        ("trial = { days = 1, then = { downgrade = \"free\" } }", 3, "plans.free.trial.then", "another plan"),
        ("[plans.free.limits]\nmembers = 3", 4, "plans.free.limits.members", "seats"),
        ("[plans.free.limits]\nx = 3", 4, "plans.free.limits.x", "there is no metric"),
        ("[templates.t]\nplan = \"x\"", 4, "templates.t.plan", "there is no plan"),
        ("[templates.t]\nfeatures = [\"x\"]", 4, "templates.t.features[0]", "there is no feature"),
        ("[templates.t.settings]\nlocale = \"?\"", 4, "templates.t.settings.locale", ""),
        ("[settings]\ncolour = \"red\"", 4, "settings.colour", "there is no key"),
        ("[settings.branding]\nprimary_color = \"red\"", 4, "settings.branding.primary_color", ""),
        ("[settings.auto_join]\nrole = \"owner\"", 4, "settings.auto_join.role", "top role"),
        ("[settings.auto_join]\nrole = \"chef\"", 4, "settings.auto_join.role", "must be one of"),
        (
            "[[rpc_rates]]\nmethod = \"a\"\nper = \"caller\"\ncount = 0\nseconds = 1",
            6,
            "rpc_rates[0].count",
            "1 to 1000",
        ),
        (
            "[[rpc_rates]]\nmethod = \"a\"\nper = \"caller\"\ncount = 1\nseconds = 0",
            7,
            "rpc_rates[0].seconds",
            "31 days",
        ),
        ("[roles.a]\nrank = 1\npermissions = [\"members.read\"]", 5, "roles.a.permissions", "highest role"),
        ("[roles.a]\nrank = 1\npermissions = [\"*\", \"quizzes.mark\"]", 5, "roles.a.permissions[1]", "no permission"),
        ("[roles.a]\nrank = 1\npermissions = [\"*\", \"usage.correct\"]", 5, "roles.a.permissions[1]", "no permission"),
        ("[roles.a]\nrank = 1\npermissions = [\"*\"]\nincludes = \"b\"", 6, "roles.a.includes", "there is no role"),
        ("[roles.a]\nrank = 1\npermissions = [\"*\"]\nincludes = \"a\"", 6, "roles.a.includes", "circle"),
        ("[roles.A]\nrank = 1\npermissions = [\"*\"]", 3, "roles.A", "names are"),
        ("[roles.a]\npermissions = [\"*\"]", 3, "roles.a", "`rank` is missing"),
        ("x = ", 3, "", "is no TOML"),
    ] {
        assert_problem(&with(rest), line, path, reason);
    }
    let limit = |rest: &str| format!("{MINIMAL}limits = {{ x = {rest} }}\n[metrics.x]\nunit = \"x\"\n");
    for (rest, path, reason) in [
        ("-1", "", "0 to 2^53"),
        ("9_007_199_254_740_993", "", "0 to 2^53"),
        ("1.5", "", "a whole number, or a table"),
        ("{ limit = 1, soft_percent = 1001 }", ".soft_percent", "0 to 1000"),
        ("{ limit = 1, burst = 5 }", ".burst", "rate"),
        ("{ limit = 1, overage = { amount = 1, per = 1 } }", ".overage", "currency"),
        ("{ limit = 1, sfot_percent = 1 }", ".sfot_percent", "there is no key"),
    ] {
        assert_problem(&limit(rest), 3, &format!("plans.free.limits.x{path}"), reason);
    }
    let twice = "[roles.a]\nrank = 1\npermissions = [\"*\"]\ndefault = true\n[roles.b]\nrank = ";
    assert_problem(&with(&format!("{twice}1")), 8, "roles.b.rank", "each rank once");
    assert_problem(&with(&format!("{twice}0\ndefault = true")), 9, "roles.b.default", "only one");
    let rate = "[[rpc_rates]]\nmethod = \"AuthService/Login\"\nper = \"caller\"\ncount = 1\nseconds = 1\n";
    assert_problem(&with(&format!("{rate}{rate}")), 10, "rpc_rates[1].per", "once");
    let unknown = Definition::parse_new(&with(rate), &["AuthService/SignUp"]).unwrap_err();
    assert_eq!((unknown[0].line, unknown[0].path.as_str()), (4, "rpc_rates[0].method"));
    assert_problem("notice_days = [1, 7]\ndefault_plan = \"free\"\n[plans.free]\n", 1, "notice_days", "go down");
    assert_problem("notice_days = [366]\ndefault_plan = \"free\"\n[plans.free]\n", 1, "notice_days", "1 to 365");
    assert_problem("", 0, "", "`default_plan` is missing");
    assert_problem("default_plan = \"free\"\n", 1, "default_plan", "there is no plan");
    assert_problem(&with(&"#".repeat(512 * 1024)), 0, "", "512 KiB");
    let many = (0..201).map(|n| format!("f{n} = \"\"")).collect::<Vec<_>>().join("\n");
    assert_problem(&with(&format!("[features]\n{many}")), 3, "features", "200 are the most");
    assert_eq!(problems(&with(&"[plans.free.limits]\n".repeat(3))).len(), 2);
}

#[test]
fn what_one_mistake_entails_is_not_told_besides() {
    // The metric and the role cannot be read, but they are there.
    let text = format!(
        "{MINIMAL}limits = {{ x = 1 }}\n[metrics.x]\nunit = 5\n[settings.auto_join]\nrole = \"b\"\n\
         [roles.a]\nrank = 9\npermissions = [\"*\"]\nincludes = \"b\"\n[roles.b]\nrank = \"low\"\n"
    );
    let lines: Vec<usize> = problems(&text).into_iter().map(|(line, ..)| line).collect();
    assert_eq!(lines, [5, 13], "{:#?}", problems(&text));
}

#[test]
fn a_diff_names_what_comes_goes_and_changes_in_order() {
    let before = good("default_plan = \"a\"\n[metrics.x]\nunit = \"x\"\n[plans.a.limits]\nx = 1\n[plans.b]\n");
    let after = good(
        "default_plan = \"a\"\n[metrics.x]\nunit = \"x\"\n[plans.a]\nseats = 3\n[plans.a.limits]\nx = 2\n[plans.c]\n\
         [settings]\nlocale = \"de\"\n",
    );
    let changes: Vec<_> = before.diff(&after).into_iter().map(|c| (c.path, c.before, c.after)).collect();
    let number = |n: i64| Some(serde_json::json!(n));
    let empty = || Some(serde_json::json!({}));
    let expected = [
        ("plans.a.limits.x", number(1), number(2)),
        ("plans.a.seats", None, number(3)),
        ("plans.b", empty(), None),
        ("plans.c", None, empty()),
        ("settings.locale", None, Some(serde_json::json!("de"))),
    ];
    assert_eq!(changes, expected.map(|(path, before, after)| (path.to_owned(), before, after)));
    let back: Vec<_> = after.diff(&before).into_iter().map(|c| (c.path, c.after, c.before)).collect();
    assert_eq!(back, changes);
}

#[test]
fn what_is_kept_of_a_plan_reads_back_as_it_was() {
    for plan in GOOD.into_iter().flat_map(|text| good(text).plans.into_values()) {
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan, "{json}");
    }
}

/// Reads a text; it must end well, or say where it is wrong.
fn survive(text: &str) -> Result<(), TestCaseError> {
    if let Err(problems) = Definition::parse_new(text, &["AuthService/Login"]) {
        prop_assert!((1..=50).contains(&problems.len()));
        for problem in &problems {
            prop_assert!(problem.line <= text.lines().count(), "{problem:?} in {} lines", text.lines().count());
            prop_assert!(!problem.reason.is_empty() && problem.to_string().len() < 2000);
        }
        let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
        prop_assert!(lines.is_sorted());
    }
    Ok(())
}

/// A change that somebody, or a bad disk, may make to a file.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Drop(Index),
    Twice(Index),
    Swap(Index, Index),
    Number(Index, i64),
    Word(Index, String),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        index().prop_map(Damage::Drop),
        index().prop_map(Damage::Twice),
        (index(), index()).prop_map(|(a, b)| Damage::Swap(a, b)),
        (index(), any::<i64>()).prop_map(|(at, n)| Damage::Number(at, n)),
        (index(), "[\\PC]{0,12}").prop_map(|(at, word)| Damage::Word(at, word)),
    ]
}

impl Damage {
    fn apply(&self, text: &str) -> String {
        let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        let key = |line: &String| line.split_once('=').map(|(key, rest)| (key.to_owned(), rest.to_owned()));
        match self {
            _ if lines.is_empty() => {}
            Self::Flip(at, byte) => {
                let mut bytes = text.as_bytes().to_vec();
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
                return String::from_utf8_lossy(&bytes).into_owned();
            }
            Self::Drop(at) => drop(lines.remove(at.index(lines.len()))),
            Self::Twice(at) => {
                let at = at.index(lines.len());
                lines.insert(at, lines[at].clone());
            }
            Self::Swap(a, b) => {
                let (a, b) = (a.index(lines.len()), b.index(lines.len()));
                if let (Some((key_a, rest_a)), Some((key_b, rest_b))) = (key(&lines[a]), key(&lines[b])) {
                    lines[a] = format!("{key_b}={rest_a}");
                    lines[b] = format!("{key_a}={rest_b}");
                } else {
                    lines.swap(a, b);
                }
            }
            Self::Number(at, number) => {
                let at = at.index(lines.len());
                if let Some((key, _)) = key(&lines[at]) {
                    lines[at] = format!("{key}= {number}");
                }
            }
            Self::Word(at, word) => {
                let at = at.index(lines.len());
                if let Some((key, _)) = key(&lines[at]) {
                    lines[at] = format!("{key}= {word:?}");
                }
            }
        }
        lines.join("\n")
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn whatever_is_written_is_read_or_refused(text in "\\PC*", lines in "([a-z\\[\\]{}=.\"#' ,0-9-]{0,20}\n){0,12}") {
        survive(&text)?;
        survive(&lines)?;
    }

    #[test]
    fn a_damaged_catalogue_is_read_or_refused(
        file in 0..GOOD.len(), damages in prop::collection::vec(damage(), 1..6), cut in prop::option::of(any::<Index>()),
    ) {
        let mut text = GOOD[file].to_owned();
        for damage in &damages {
            text = damage.apply(&text);
        }
        if let Some(cut) = cut {
            text = text.chars().take(cut.index(text.len().max(1))).collect();
        }
        survive(&text)?;
    }
}
