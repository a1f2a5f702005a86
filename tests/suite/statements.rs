//! Every statement of the store: prepared on both engines, allowed to the role that runs it, and bound to the tenant or
//! person that its kind promises.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection, Executor as _, PgConnection, SqlSafeStr as _, SqliteConnection};
use tenantry::store::tx::Listed;
use tenantry::store::{Store, statements};

use crate::cluster::Cluster;
use crate::startup::connect;

/// Whose rows a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    /// It has `tenant_id`.
    Tenants,
    /// It has `user_id` and no `tenant_id`.
    Persons,
    /// Answers of callers, of a tenant or of none.
    Callers,
    /// The change feed.
    Feed,
    /// Nobody's.
    Platform,
}

type Tables = BTreeMap<String, Table>;

/// What is wrong with a statement; none when nothing is.
fn fault(tables: &Tables, file: &str, kind: &str, sql: &str) -> Option<String> {
    let words = words(sql);
    let mut mentions = mentions(&words);
    // What the statement itself names with `with` is made of the tables that are mentioned there.
    let is_own = |name: &str| words.windows(3).any(|w| w[0] == name && w[1..] == ["as", "("]);
    mentions.retain(|m| tables.contains_key(m.table) || !is_own(m.table));
    if let Some(unknown) = mentions.iter().find(|m| !tables.contains_key(m.table)) {
        return Some(format!("names {}, which is no table", unknown.table));
    }
    let of = |wanted: Table| mentions.iter().filter(move |m| tables[m.table] == wanted);
    let strange = |allowed: &[Table]| mentions.iter().find(|m| !allowed.contains(&tables[m.table]));
    let refuse = |allowed: &[Table]| strange(allowed).map(|m| format!("{kind} must not touch {}", m.table));
    let across = file.starts_with("src/store/system");
    let file = file.rsplit('/').next().unwrap_or_default();
    match kind {
        // Answers kept for callers go with their tenant; nothing else reads them by tenant alone.
        "OfTenant" if file == "purge.rs" => {
            refuse(&[Table::Tenants, Table::Callers]).or_else(|| unbound(&words, mentions.iter(), "tenant_id"))
        }
        "OfTenant" => refuse(&[Table::Tenants]).or_else(|| unbound(&words, of(Table::Tenants), "tenant_id")),
        "OfUser" => refuse(&[Table::Persons]).or_else(|| unbound(&words, of(Table::Persons), "user_id")),
        "OfCaller" if file != "idempotency.rs" => Some("OfCaller is for idempotency.rs".to_owned()),
        "OfCaller" => {
            refuse(&[Table::Callers]).or_else(|| unbound(&words, of(Table::Callers), "tenant_id")).or_else(|| {
                let bound = ["caller_kind = $2 and caller_id = $3", "( tenant_id , caller_kind , caller_id ,"];
                let text = words.join(" ");
                (!bound.iter().any(|b| text.contains(b))).then(|| "is not bound to the caller".to_owned())
            })
        }
        "AcrossTenants" if !across && file != "feed.rs" => Some("AcrossTenants is for system and feed.rs".to_owned()),
        "AcrossTenants" => (words[0] != "select").then(|| "AcrossTenants only reads".to_owned()),
        "ByMeter" if !["lanes.rs", "proof.rs"].contains(&file) => {
            Some("ByMeter is for lanes.rs and proof.rs".to_owned())
        }
        "ByMeter" => {
            let counted = |m: &&Mention<'_>| ["quota_", "usage_", "job"].iter().any(|of| m.table.starts_with(of));
            mentions.iter().find(|m| !counted(m)).map(|m| format!("the lanes must not touch {}", m.table))
        }
        "OfPlatform" if file == "feed.rs" => refuse(&[Table::Platform, Table::Feed]),
        "OfPlatform" => refuse(&[Table::Platform]),
        _ => Some(format!("{kind} is no kind")),
    }
}

/// A place where a statement reads or changes a table.
struct Mention<'t> {
    table: &'t str,
    /// By which its columns are named; empty when by themselves.
    alias: &'t str,
    /// For an insert, where its list of columns begins.
    columns: Option<usize>,
}

/// Words and signs, with `$1` and `a.b` as one word.
fn words(sql: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let is_word = |c: char| c.is_alphanumeric() || "_$.'{}".contains(c);
    let mut rest = sql.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        words.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    words
}

fn mentions<'t>(words: &[&'t str]) -> Vec<Mention<'t>> {
    let after_table =
        ["where", "set", "on", "join", "left", "inner", "order", "for", "limit", "group", "using", "values", "cross"];
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let names = match *word {
            "from" | "join" | "into" => true,
            // Not the `update` of `for update` and `do update set`.
            "update" => at == 0,
            // A second table behind a comma would go unseen.
            "," => false,
            _ => continue,
        };
        let no_table = ["(", "lateral", "unnest", "json_each"];
        let Some(table) = words.get(at + 1).filter(|table| names && !no_table.contains(table)) else {
            continue;
        };
        let alias = words.get(at + 2).filter(|w| w.chars().all(|c| c.is_ascii_lowercase()) && !after_table.contains(w));
        let columns = (*word == "into").then_some(at + 2);
        found.push(Mention { table, alias: alias.copied().unwrap_or_default(), columns });
    }
    found
}

/// A table among `mentions` whose rows are not narrowed to `$1`.
fn unbound<'m>(words: &[&str], mentions: impl Iterator<Item = &'m Mention<'m>>, column: &str) -> Option<String> {
    // Parentheses inside a condition narrow further; an `or` beside the binding, or a binding inside them, would not.
    let selects = |at: usize| group(words, at).is_none_or(|start| words[start + 1] == "select");
    if (0..words.len()).any(|at| words[at] == "or" && selects(at)) {
        return Some("an `or` may step round the binding".to_owned());
    }
    let mut wanted: BTreeMap<String, usize> = BTreeMap::new();
    for mention in mentions {
        if let Some(start) = mention.columns {
            let values = words.iter().position(|w| *w == "values").map(|at| &words[at + 1..]);
            let bound =
                words[start..].starts_with(&["(", column]) && values.is_some_and(|v| v.starts_with(&["(", "$1"]));
            if !bound {
                return Some(format!("{}: {column} must be the first column, bound to $1", mention.table));
            }
            continue;
        }
        let name = if mention.alias.is_empty() { column.to_owned() } else { format!("{}.{column}", mention.alias) };
        *wanted.entry(name).or_default() += 1;
    }
    let binds = |name: &str, at: usize| words[at..].starts_with(&[name, "=", "$1"]) && selects(at);
    let bound = |name: &str| (0..words.len()).filter(|at| binds(name, *at)).count();
    wanted.iter().find(|(name, times)| bound(name) < **times).map(|(name, _)| format!("{name} = $1 is missing"))
}

/// Where the parenthesis opens that encloses a word.
fn group(words: &[&str], at: usize) -> Option<usize> {
    let mut closed = 0;
    (0..at).rev().find(|&i| {
        match words[i] {
            ")" => closed += 1,
            "(" if closed == 0 => return true,
            "(" => closed -= 1,
            _ => {}
        }
        false
    })
}

/// The tables, from the catalogue of PostgreSQL.
async fn tables(admin: &mut PgConnection) -> Tables {
    let rows: Vec<(String, bool, bool)> = sqlx::query_as(
        "select c.relname::text,
                exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id'),
                exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'user_id')
         from pg_class c
         where c.relnamespace = 'tenantry'::regnamespace and c.relkind in ('r', 'p')",
    )
    .fetch_all(admin)
    .await
    .unwrap();
    let table = |(name, tenant, user): (String, bool, bool)| {
        let table = match (name.as_str(), tenant, user) {
            ("change", ..) => Table::Feed,
            ("idempotency", ..) => Table::Callers,
            (_, true, _) => Table::Tenants,
            (_, false, true) => Table::Persons,
            _ => Table::Platform,
        };
        (name, table)
    };
    rows.into_iter().map(table).collect()
}

fn told(statement: &Listed, problem: impl std::fmt::Display) -> String {
    format!("{} {}: {problem}", statement.file, statement.name)
}

#[tokio::test]
async fn every_statement_prepares_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    Store::open_sqlite(dir.path()).await.unwrap().close().await;
    let url = format!("sqlite://{}", dir.path().join("tenantry.db").display());
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    for statement in statements() {
        let prepared = conn.prepare(AssertSqlSafe(statement.sqlite).into_sql_str()).await;
        prepared.unwrap_or_else(|error| panic!("{}", told(&statement, error)));
    }
}

#[tokio::test]
async fn every_statement_is_allowed_to_the_role_that_runs_it() {
    let database = Cluster::shared().fresh_database().await;
    let (mut app, mut system) = (connect(&database.app_url).await, connect(&database.system_url).await);
    let mut meter = connect(&database.meter_url).await;
    // The feed's own statements are SQLite's way; PostgreSQL appends by a function, and the application cannot read it.
    let sqlite_only = |s: &Listed| s.file.ends_with("feed.rs") && s.kind == "OfPlatform";
    for statement in statements().into_iter().filter(|s| !sqlite_only(s)) {
        let conn = match statement.kind {
            "AcrossTenants" => &mut system,
            "ByMeter" => &mut meter,
            _ => &mut app,
        };
        allowed(conn, statement.postgres).await.unwrap_or_else(|error| panic!("{}", told(&statement, error)));
    }
    // The statements of the one are too much for the other.
    let across = statements().into_iter().find(|s| s.name == "FIND_ACCOUNT_BY_EMAIL").unwrap();
    assert!(allowed(&mut system, across.postgres).await.is_ok());
    let insert = statements().into_iter().find(|s| s.name == "INSERT_CREDENTIAL").unwrap();
    let error = allowed(&mut system, insert.postgres).await.unwrap_err();
    assert!(error.to_string().contains("permission denied"), "{error}");
}

/// Prepares a statement with inferred types, then plans it: privileges are looked at only then.
async fn allowed(conn: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    conn.prepare(AssertSqlSafe(sql).into_sql_str()).await?;
    let numbers = words(sql).into_iter().filter_map(|word| word.strip_prefix('$')?.parse::<usize>().ok());
    let arguments = vec!["null"; numbers.max().unwrap_or(0)].join(", ");
    let arguments = if arguments.is_empty() { arguments } else { format!("({arguments})") };
    let text = format!("prepare s as {sql}; explain execute s{arguments}; deallocate s");
    sqlx::raw_sql(AssertSqlSafe(text)).execute(conn).await.map(drop)
}

#[tokio::test]
async fn every_statement_is_bound_as_its_kind_says() {
    let database = Cluster::shared().fresh_database().await;
    let tables = tables(&mut connect(&database.admin_url).await).await;
    assert_eq!(tables.get("membership"), Some(&Table::Tenants));
    assert_eq!(tables.get("session"), Some(&Table::Persons));
    let mut faults = Vec::new();
    for s in statements() {
        for sql in [s.postgres, s.sqlite] {
            faults.extend(fault(&tables, s.file, s.kind, sql).map(|problem| told(&s, problem)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(statements().len() > 40);
}

#[test]
fn a_statement_without_its_binding_is_caught() {
    let of = |names: &[&str], table| names.iter().map(|n| ((*n).to_owned(), table)).collect::<Vec<_>>();
    let tables: Tables = [
        of(&["tenant", "membership"], Table::Tenants),
        of(&["device", "session"], Table::Persons),
        of(&["idempotency"], Table::Callers),
        of(&["change"], Table::Feed),
        of(&["rpc_rate"], Table::Platform),
    ]
    .concat()
    .into_iter()
    .collect();
    for (kind, sql) in [
        ("OfTenant", "select * from membership where membership_id = $2"),
        ("OfTenant", "select * from membership where tenant_id = $2"),
        ("OfTenant", "select * from membership where tenant_id = $1 or true"),
        ("OfTenant", "select * from membership where (tenant_id = $1 or true)"),
        ("OfTenant", "select 1 from tenant t join membership m on m.tenant_id = t.tenant_id where t.tenant_id = $1"),
        ("OfTenant", "update tenant set plan = $2 where plan = (select plan from tenant where tenant_id = $1)"),
        ("OfTenant", "insert into membership (membership_id, tenant_id) values ($2, $1)"),
        ("OfTenant", "insert into membership (tenant_id, membership_id) values ($2, $1)"),
        ("OfTenant", "select * from device where user_id = $1"),
        ("OfUser", "delete from device where digest = $2"),
        ("OfUser", "delete from device where user_id = $1 and digest in (select digest from device)"),
        ("OfUser", "select * from membership where user_id = $1"),
        ("OfPlatform", "select count(*) from tenant"),
        ("OfPlatform", "select max(seq) from change"),
        ("OfCaller", "select * from idempotency where tenant_id = $1"),
        ("AcrossTenants", "select * from tenant where tenant_id = $1"),
        ("OfTenant", "select * from nowhere where tenant_id = $1"),
        ("ByMeter", "select * from quota_account"),
    ] {
        assert!(fault(&tables, "src/store/tenants.rs", kind, sql).is_some(), "{kind}: {sql}");
    }
    assert!(
        fault(&tables, "src/store/system.rs", "AcrossTenants", "delete from tenant where tenant_id = $1").is_some()
    );
    let unbound = "select * from idempotency where tenant_id = $1 and caller_id = $3";
    assert!(fault(&tables, "src/store/idempotency.rs", "OfCaller", unbound).is_some());
    for (kind, sql) in [
        ("OfTenant", "select 1 from tenant t join membership m on m.tenant_id = $1 where t.tenant_id = $1 for update"),
        ("OfTenant", "insert into membership (tenant_id, role) values ($1, $2) on conflict do update set role = $2"),
        (
            "OfUser",
            "delete from device where user_id = $1 and digest in (select digest from device where user_id = $1)",
        ),
        ("OfTenant", "select * from membership where tenant_id = $1 and (role = $2 or $2 = '')"),
        ("OfPlatform", "update rpc_rate set hits = $2 where subject = $1"),
    ] {
        assert_eq!(fault(&tables, "src/store/tenants.rs", kind, sql), None, "{sql}");
    }
}
