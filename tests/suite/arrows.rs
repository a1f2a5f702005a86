//! Who may import whom, read from the sources: the arrows of the design, and the house rules that no lint knows.

use std::fs;
use std::path::Path;

/// Modules of ours that each part may name besides itself; the first line that fits a path counts. `cli/serve.rs` puts
/// everything together and so may name everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain/", &["error", "time", "entropy"]),
    ("store/", &["domain", "ctx", "error", "time", "entropy"]),
    ("decide/", &["store", "domain", "ctx", "error", "time", "entropy"]),
    ("outside/", &["domain", "error", "time"]),
    ("app/", &["domain", "decide", "store", "outside", "ctx", "error", "time", "entropy"]),
    // The gate asks the decision plane; front.rs continues the caller's trace.
    ("rpc/", &["app", "decide", "domain", "ctx", "error", "time", "entropy", "telemetry"]),
    ("http/", &["app"]),
    ("jobs/", &["app", "error"]),
    (
        "cli/serve.rs",
        &["app", "config", "decide", "domain", "http", "jobs", "outside", "rpc", "store", "telemetry", "time"],
    ),
    ("cli/pulse.rs", &["app", "http", "store"]),
    ("cli/migrate.rs", &["store"]),
    // A file is checked without a server.
    ("cli/catalogue.rs", &["domain", "rpc"]),
    ("cli/", &["config", "rpc", "telemetry", "time"]),
    ("config", &[]),
    ("telemetry.rs", &["config"]),
    ("ctx.rs", &["domain", "time", "entropy"]),
    ("error.rs", &["time"]),
    ("entropy.rs", &["time"]),
    ("time.rs", &[]),
    ("lib.rs", &[]),
    ("main.rs", &[]),
];

/// Foreign crates that belong to some parts alone. Telemetry sets up TLS for OTLP, which goes over tonic, too.
const CRATES: &[(&str, &[&str])] = &[
    ("sqlx", &["store/"]),
    ("tonic", &["rpc/", "cli/", "telemetry.rs"]),
    ("tonic_types", &["rpc/", "cli/"]),
    ("tonic_health", &["cli/pulse.rs", "cli/serve.rs"]),
    ("tonic_reflection", &["cli/serve.rs"]),
    ("prost_types", &["rpc/", "cli/"]),
    ("prost_reflect", &["cli/"]),
    ("axum", &["http/"]),
    ("hickory_resolver", &["outside/"]),
    ("reqwest", &["outside/"]),
    ("openidconnect", &["outside/"]),
    ("lettre", &["outside/"]),
    ("reqwest", &["outside/"]),
    ("minijinja", &["app/mail/"]),
    ("clap", &["cli/", "config"]),
    // Codes of authenticators are a matter of rules and values.
    ("totp_rs", &["domain/"]),
];

/// What is wrong with a file; its path is below src/.
fn faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push(format!("{path}: does not begin with //!"));
    }
    if text.contains("#[allow(") || text.contains("#![allow(") {
        faults.push(format!("{path}: #[allow], use #[expect(.., reason = ..)]"));
    }
    let code = code(text);
    let Some((_, allowed)) = ARROWS.iter().find(|(prefix, _)| path.starts_with(prefix)) else {
        faults.push(format!("{path}: the design has no place for it; say in ARROWS what it may import"));
        return faults;
    };
    let own = path.split(['/', '.']).next().unwrap_or_default();
    for module in names_after(&code, "crate::") {
        if module != own && !allowed.contains(&module) {
            faults.push(format!("{path}: imports crate::{module}"));
        }
    }
    for (name, places) in CRATES {
        let used = names_before(&code, "::").any(|word| word == *name);
        if used && !places.iter().any(|place| path.starts_with(place)) {
            faults.push(format!("{path}: uses {name}"));
        }
    }
    if !path.starts_with("store/") {
        faults.extend(literals(&code).filter(|literal| is_sql(literal)).map(|sql| format!("{path}: SQL {sql:?}")));
    }
    faults
}

/// The text without comments and without its unit tests, which may do as they like.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The names that follow `before`; of a list in braces, all that begin an item.
fn names_after<'t>(code: &'t str, before: &'t str) -> impl Iterator<Item = &'t str> {
    code.match_indices(before).flat_map(move |(at, _)| {
        let rest = &code[at + before.len()..];
        let list = rest.strip_prefix('{').and_then(|list| list.split('}').next());
        let items: Vec<&str> = list.map_or_else(|| vec![rest], |list| list.split(',').collect());
        items.into_iter().filter_map(|item| item.trim_start().split(|c| !is_word(c)).next())
    })
}

fn names_before<'t>(code: &'t str, after: &'t str) -> impl Iterator<Item = &'t str> {
    code.match_indices(after).filter_map(move |(at, _)| code[..at].rsplit(|c| !is_word(c)).next())
}

/// The string literals, near enough: what stands between quotation marks.
fn literals(code: &str) -> impl Iterator<Item = &str> {
    code.split('"').skip(1).step_by(2)
}

fn is_sql(literal: &str) -> bool {
    let text = format!(" {} ", literal.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" "));
    [("select ", " from "), ("insert into ", " "), ("delete from ", " "), (" update ", " set ")]
        .iter()
        .any(|(verb, then)| text.split_once(verb).is_some_and(|(_, rest)| format!(" {rest}").contains(then)))
}

fn sources(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn the_sources_follow_the_arrows() {
    let mut files = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
    assert!(files.len() > 50, "the sources were not found");
    let faults: Vec<String> = files.iter().flat_map(|(path, text)| faults(path, text)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn each_rule_is_seen_to_be_broken() {
    for (path, text, fault) in [
        ("domain/x.rs", "//! x\nuse crate::store::Store;", "imports crate::store"),
        ("domain/x.rs", "//! x\nuse crate::{time::Clock, ctx::Ctx};", "imports crate::ctx"),
        ("domain/x.rs", "//! x\nfn f() { crate::app::g() }", "imports crate::app"),
        ("decide/x.rs", "//! x\nuse crate::app::App;", "imports crate::app"),
        ("app/x.rs", "//! x\nuse crate::rpc::v1;", "imports crate::rpc"),
        ("rpc/x.rs", "//! x\nuse crate::store::Store;", "imports crate::store"),
        ("http/mod.rs", "//! x\nuse crate::store::Store;", "imports crate::store"),
        ("cli/x.rs", "//! x\nuse crate::app::App;", "imports crate::app"),
        ("app/x.rs", "//! x\nfn f(c: sqlx::PgConnection) {}", "uses sqlx"),
        ("app/x.rs", "//! x\nuse tonic::Status;", "uses tonic"),
        ("app/x.rs", "use crate::ctx::Ctx;", "does not begin with //!"),
        ("app/x.rs", "//! x\n#[allow(dead_code)]", "#[allow]"),
        ("app/x.rs", "//! x\nconst Q: &str = \"select a\n from tenant\";", "SQL"),
        ("app/x.rs", "//! x\nconst Q: &str = \"update tenant set a = 1\";", "SQL"),
        ("outside/x.rs", "//! x\nuse crate::store::Store;", "imports crate::store"),
        ("rpc/x.rs", "//! x\nuse crate::outside::Resolver;", "imports crate::outside"),
        ("app/x.rs", "//! x\nuse hickory_resolver::Resolver;", "uses hickory_resolver"),
        ("elsewhere/x.rs", "//! x\n", "no place"),
    ] {
        let found = faults(path, text);
        assert!(found.iter().any(|f| f.contains(fault)), "{path} {text}: {found:?}");
    }
    let fine = "//! x\n// crate::rpc\nuse crate::store::Store;\n#[cfg(test)]\nmod tests {\nuse crate::rpc::v1;\n}";
    assert!(faults("app/x.rs", fine).is_empty());
}
