//! SQL as the application role, with nothing between it and the rows but the policies: it reaches no row of another
//! tenant or person. As the role of the commit lanes: it reaches what is counted, and nothing else. And the test of that
//! test: without any one of the policies it fails.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::cluster::{Cluster, Database};
use crate::startup::{connect, run};

/// Two tenants, each with one person.
const TENANTS: [&str; 2] = ["aaaaaaaa-0000-4000-8000-00000000000a", "bbbbbbbb-0000-4000-8000-00000000000b"];
const PEOPLE: [&str; 2] = ["aaaaaaaa-1111-4111-8111-11111111111a", "bbbbbbbb-1111-4111-8111-11111111111b"];

/// A table of a tenant or a person, from the catalogue.
#[derive(Debug, sqlx::FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "grants, as the catalogue has them")]
struct Table {
    name: String,
    /// `tenant_id`, or else `user_id`.
    owner: String,
    /// Names and types of all columns, the same order.
    columns: Vec<String>,
    types: Vec<String>,
    app_reads: bool,
    app_inserts: bool,
    app_updates: bool,
    app_deletes: bool,
    system_reads: bool,
    meter_reads: bool,
    meter_inserts: bool,
    meter_updates: bool,
    meter_deletes: bool,
}

const TABLES: &str = "
    select c.relname::text as name,
           min(a.attname::text) filter (where a.attname in ('tenant_id', 'user_id')) as owner,
           array_agg(a.attname::text order by a.attnum) as columns,
           array_agg(a.atttypid::regtype::text order by a.attnum) as types,
           has_any_column_privilege('tenantry_app', c.oid, 'select') as app_reads,
           has_any_column_privilege('tenantry_app', c.oid, 'insert') as app_inserts,
           has_any_column_privilege('tenantry_app', c.oid, 'update') as app_updates,
           has_table_privilege('tenantry_app', c.oid, 'delete') as app_deletes,
           has_any_column_privilege('tenantry_system', c.oid, 'select') as system_reads,
           has_any_column_privilege('tenantry_meter', c.oid, 'select') as meter_reads,
           has_any_column_privilege('tenantry_meter', c.oid, 'insert') as meter_inserts,
           has_any_column_privilege('tenantry_meter', c.oid, 'update') as meter_updates,
           has_table_privilege('tenantry_meter', c.oid, 'delete') as meter_deletes
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
    where c.relnamespace = 'tenantry'::regnamespace and c.relkind in ('r', 'p')
    group by c.oid
    having bool_or(a.attname in ('tenant_id', 'user_id'))
    order by 1";

impl Table {
    /// The id that owns a row of tenant and person number `who`.
    fn id(&self, who: usize) -> &'static str {
        if self.owner == "tenant_id" { TENANTS[who] } else { PEOPLE[who] }
    }

    /// A whole row of `who`; `seed` makes it differ from others of the same.
    fn insert(&self, who: usize, seed: &str) -> String {
        let values: Vec<_> =
            self.columns.iter().zip(&self.types).map(|(name, kind)| value(name, kind, who, seed)).collect();
        format!("insert into tenantry.{} ({}) values ({})", self.name, self.columns.join(", "), values.join(", "))
    }
}

/// A value for a column. Numbers are 3, a removed member's status: several of one person then go together.
fn value(column: &str, kind: &str, who: usize, seed: &str) -> String {
    match (column, kind) {
        ("tenant_id", _) => format!("'{}'", TENANTS[who]),
        ("user_id" | "caller_id", _) => format!("'{}'", PEOPLE[who]),
        ("seq", _) => "(random() * 1000000)::integer + 1".to_owned(),
        (_, "uuid") => "gen_random_uuid()".to_owned(),
        (_, "timestamp with time zone") => "clock_timestamp()".to_owned(),
        (_, "bigint" | "integer" | "smallint") => "3".to_owned(),
        (_, "boolean") => "false".to_owned(),
        (_, "bytea") => format!("'{seed}{who}'::bytea"),
        ("body", "text") | (_, "jsonb" | "json") => "'{}'".to_owned(),
        (_, "text") => format!("'{seed}{who}'"),
        other => panic!("teach value() to make {other:?}"),
    }
}

/// A database in which both tenants and both people have a row in every table.
async fn populated(cluster: &Cluster) -> (Database, Vec<Table>) {
    let database = cluster.fresh_database().await;
    let mut admin = connect(&database.admin_url).await;
    let tables: Vec<Table> = sqlx::query_as(TABLES).fetch_all(&mut admin).await.unwrap();
    assert!(tables.len() >= 12, "{tables:?}");
    run(&mut admin, "set session_replication_role = replica").await; // no foreign keys, in whichever order
    for table in &tables {
        for who in [0, 1] {
            run(&mut admin, &table.insert(who, "first")).await;
        }
    }
    (database, tables)
}

/// A number, undone.
async fn number(conn: &mut PgConnection, sql: String) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).persistent(false).fetch_one(conn).await.unwrap()
}

/// How a statement ended, undone: rows it touched, or the code of its error.
async fn attempt(conn: &mut PgConnection, sql: String) -> Result<u64, String> {
    let mut savepoint = conn.begin().await.unwrap();
    let outcome = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *savepoint).await;
    savepoint.rollback().await.unwrap();
    outcome.map(|done| done.rows_affected()).map_err(|error| match error {
        sqlx::Error::Database(error) => error.code().unwrap_or_default().into_owned(),
        other => panic!("{other}"),
    })
}

/// Refused by a policy (or a missing grant), as opposed to by a constraint that is asked later.
fn denied(outcome: &Result<u64, String>) -> bool {
    outcome.as_ref().is_err_and(|code| code == "42501")
}

/// What goes wrong in one table for `me` (a number in [`TENANTS`], or none): rows of others that can be reached, and
/// rows of one's own that cannot.
async fn trespasses(app: &mut PgConnection, table: &Table, me: Option<usize>) -> Vec<String> {
    let (name, owner) = (&table.name, &table.owner);
    let mut wrong = Vec::new();
    let mut note = |what: &str, who: usize| wrong.push(format!("{name}: as {me:?}, {what} of {who}"));
    for who in [0, 1] {
        let (mine, id) = (me == Some(who), table.id(who));
        if table.app_reads {
            let count = format!("select count({owner}) from tenantry.{name} where {owner} = '{id}'");
            if (number(app, count).await > 0) != mine {
                note("sees or misses rows", who);
            }
        }
        if table.app_updates {
            // A statement that does not say whose rows: the policy alone decides.
            let update = format!("update tenantry.{name} set {owner} = '{id}' where {owner} = '{id}'");
            if (attempt(app, update).await != Ok(0)) != mine {
                note("updates or cannot update rows", who);
            }
        }
        if table.app_updates && mine {
            let give_away =
                format!("update tenantry.{name} set {owner} = '{}' where {owner} = '{id}'", table.id(1 - who));
            if !denied(&attempt(app, give_away).await) {
                note("gives away rows", who);
            }
        }
        if table.app_deletes {
            let delete = format!("delete from tenantry.{name} where {owner} = '{id}'");
            if (attempt(app, delete).await != Ok(0)) != mine {
                note("deletes or cannot delete rows", who);
            }
        }
        if table.app_inserts && denied(&attempt(app, table.insert(who, "second")).await) == mine {
            note("inserts or cannot insert rows", who);
        }
    }
    wrong
}

/// Everything that goes wrong in the given tables: with nobody bound, with each of the two, and after a commit.
async fn all_trespasses(database: &Database, tables: &[&Table]) -> Vec<String> {
    let mut app = connect(&database.app_url).await;
    let mut wrong = Vec::new();
    for me in [None, Some(0), None, Some(1), None] {
        let mut tx = app.begin().await.unwrap();
        if let Some(me) = me {
            let (tenant, person) = (TENANTS[me], PEOPLE[me]);
            run(&mut tx, &format!("set local tenantry.tenant = '{tenant}'; set local tenantry.\"user\" = '{person}'"))
                .await;
        }
        for table in tables {
            wrong.extend(trespasses(&mut tx, table, me).await);
        }
        tx.commit().await.unwrap();
    }
    let mut system = connect(&database.system_url).await;
    for table in tables.iter().filter(|table| table.system_reads) {
        let owner = &table.owner;
        let owners = format!("select count(distinct {owner}) from tenantry.{} where {owner} is not null", table.name);
        if number(&mut system, owners).await != 2 {
            wrong.push(format!("{}: the system role does not see both", table.name));
        }
    }
    for table in tables {
        if !denied(&attempt(&mut system, table.insert(0, "third")).await) {
            wrong.push(format!("{}: the system role writes", table.name));
        }
    }
    let mut meter = connect(&database.meter_url).await;
    for table in tables {
        wrong.extend(lane_trespasses(&mut meter, table).await);
    }
    wrong
}

/// What the role of the commit lanes may do, verb by verb.
const OF_THE_LANES: [(&str, &str); 10] = [
    ("expected_policy", "select"),
    ("job", "insert select update"),
    ("quota_account", "select update"),
    ("quota_hold", "insert select update"),
    ("quota_lease", "delete insert select update"),
    ("quota_notice", "insert"),
    ("quota_writer", "delete insert select update"),
    ("usage_event", "delete insert select update"),
    ("usage_horizon", "select"),
    ("usage_rollup", "insert select update"),
];

/// What goes wrong in one table for the role of the commit lanes: on its own tables it works on rows of both tenants in one
/// transaction, and of any other it reaches no row.
async fn lane_trespasses(meter: &mut PgConnection, table: &Table) -> Vec<String> {
    let (name, owner) = (&table.name, &table.owner);
    let own = OF_THE_LANES.iter().any(|(own, _)| own == name);
    let mut tx = meter.begin().await.unwrap();
    let mut wrong = Vec::new();
    for who in [0, 1] {
        let id = table.id(who);
        for (verb, granted, sql) in [
            ("select", table.meter_reads, format!("select {owner} from tenantry.{name} where {owner} = '{id}'")),
            ("insert", table.meter_inserts, table.insert(who, "fourth")),
            (
                "update",
                table.meter_updates,
                format!("update tenantry.{name} set {owner} = {owner} where {owner} = '{id}'"),
            ),
            ("delete", table.meter_deletes, format!("delete from tenantry.{name} where {owner} = '{id}'")),
        ] {
            let outcome = attempt(&mut tx, sql).await;
            // Refused or without effect, as opposed to done, or stopped by a constraint that is asked after the policies.
            let reached = !denied(&outcome) && outcome != Ok(0);
            if reached != (own && granted) {
                wrong.push(format!("{name}: the commit lanes, {verb} of {who}: {outcome:?}"));
            }
        }
    }
    tx.rollback().await.unwrap();
    wrong
}

#[tokio::test]
async fn the_role_of_the_commit_lanes_may_do_what_they_need_and_nothing_more() {
    let database = Cluster::shared().fresh_database().await;
    let granted: Vec<(String, String)> = sqlx::query_as(
        "select c.relname::text, string_agg(verb, ' ' order by verb)
         from pg_class c
         cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) verb
         where c.relnamespace = 'tenantry'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
           and case when verb in ('select', 'insert', 'update', 'references')
                    then has_any_column_privilege('tenantry_meter', c.oid, verb)
                    else has_table_privilege('tenantry_meter', c.oid, verb) end
         group by c.relname
         order by 1",
    )
    .fetch_all(&mut connect(&database.admin_url).await)
    .await
    .unwrap();
    let granted: Vec<_> = granted.iter().map(|(table, verbs)| (table.as_str(), verbs.as_str())).collect();
    assert_eq!(granted, OF_THE_LANES);
}

#[tokio::test]
async fn a_table_opened_to_the_commit_lanes_by_mistake_is_noticed() {
    let (database, tables) = populated(Cluster::shared()).await;
    let mut admin = connect(&database.admin_url).await;
    for name in ["membership", "session", "quota_threshold", "outbox"] {
        let table = tables.iter().find(|table| table.name == name).unwrap();
        let mistake = "create policy meter_all on tenantry.% for all to tenantry_meter using (true) with check (true);
            grant select, insert, update, delete on tenantry.% to tenantry_meter";
        run(&mut admin, &mistake.replace('%', name)).await;
        let wrong = lane_trespasses(&mut connect(&database.meter_url).await, table).await;
        assert_eq!(wrong.len(), 8, "{wrong:?}");
    }
}

#[tokio::test]
async fn the_application_role_reaches_no_row_of_another_tenant_or_person() {
    let (database, tables) = populated(Cluster::shared()).await;
    let tables: Vec<_> = tables.iter().collect();
    assert_eq!(all_trespasses(&database, &tables).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_person_bound_without_a_tenant_sees_only_what_belongs_to_people() {
    let (database, tables) = populated(Cluster::shared()).await;
    let mut app = connect(&database.app_url).await;
    for (bind, theirs) in [(r#"tenantry."user""#, "user_id"), ("tenantry.tenant", "tenant_id")] {
        let mut tx = app.begin().await.unwrap();
        let id = if theirs == "user_id" { PEOPLE[0] } else { TENANTS[0] };
        run(&mut tx, &format!("set local {bind} = '{id}'")).await;
        for table in tables.iter().filter(|table| table.app_reads) {
            let count = number(&mut tx, format!("select count(*) from tenantry.{}", table.name)).await;
            assert_eq!(count, i64::from(table.owner == theirs), "{bind}: {}", table.name);
        }
        tx.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_kept_without_a_tenant_is_its_callers_alone() {
    let database = Cluster::shared().fresh_database().await;
    let mut admin = connect(&database.admin_url).await;
    for person in PEOPLE {
        let row = format!("(gen_random_uuid(), 1, '{person}', '', '', '', '', now(), now())");
        run(&mut admin, &format!("insert into tenantry.idempotency values {row}")).await;
        run(&mut admin, &format!("insert into tenantry.idempotency values {}", row.replace("gen_random_uuid()", NIL)))
            .await;
    }
    let mut app = connect(&database.app_url).await;
    for person in PEOPLE {
        let mut tx = app.begin().await.unwrap();
        run(&mut tx, &format!("set local tenantry.\"user\" = '{person}'")).await;
        let theirs = format!("select count(*) from idempotency where tenant_id = {NIL} and caller_id = '{person}'");
        assert_eq!(number(&mut tx, theirs).await, 1);
        assert_eq!(number(&mut tx, "select count(*) from idempotency".to_owned()).await, 1);
        tx.rollback().await.unwrap();
    }
}

/// In the place of a tenant where there is none.
const NIL: &str = "'00000000-0000-0000-0000-000000000000'";

#[tokio::test]
async fn without_any_one_policy_the_isolation_test_fails() {
    let (database, tables) = populated(Cluster::shared()).await;
    let mut admin = connect(&database.admin_url).await;
    let policies: Vec<(String, String, bool)> = sqlx::query_as(
        "select polrelid::regclass::text, polname::text, polname = any ('{system_read,feed_read,meter_all}')
         from pg_policy
         where polrelid in (select oid from pg_class where relnamespace = 'tenantry'::regnamespace)
         order by 1, 2",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    assert!(policies.len() >= 18, "{policies:?}");
    for (relation, policy, reads_all) in policies {
        let name = relation.trim_start_matches("tenantry.");
        let table = tables.iter().find(|table| table.name == name).expect("a policy on a table of nobody");
        let mut sabotages = vec![format!("drop policy {policy} on {relation}")];
        if !reads_all {
            sabotages.extend(weakenings(&mut admin, &relation, &policy).await);
        }
        for sabotage in sabotages {
            let mut tx = vec![create_again(&mut admin, &relation, &policy).await];
            run(&mut admin, &sabotage).await;
            assert_ne!(all_trespasses(&database, &[table]).await, Vec::<String>::new(), "unnoticed: {sabotage}");
            tx.insert(0, format!("drop policy if exists {policy} on {relation}"));
            run(&mut admin, &tx.join("; ")).await;
        }
        assert_eq!(all_trespasses(&database, &[table]).await, Vec::<String>::new(), "after {policy} on {relation}");
    }
}

/// Each half of the policy replaced by `true`.
async fn weakenings(admin: &mut PgConnection, relation: &str, policy: &str) -> Vec<String> {
    let halves: Vec<String> = sqlx::query_scalar(
        "select half
         from pg_policy, unnest(array[case when polqual is not null then 'using' end,
                                      case when polwithcheck is not null then 'with check' end]) as half
         where polrelid = $1::regclass and polname = $2 and half is not null",
    )
    .bind(relation)
    .bind(policy)
    .fetch_all(admin)
    .await
    .unwrap();
    halves.iter().map(|half| format!("alter policy {policy} on {relation} {half} (true)")).collect()
}

/// The statement that makes the policy as it is now.
async fn create_again(admin: &mut PgConnection, relation: &str, policy: &str) -> String {
    sqlx::query_scalar(
        "select format('create policy %I on %s for %s to %s', polname, polrelid::regclass,
                       case polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
                                   when 'd' then 'delete' else 'all' end,
                       (select string_agg(rolname, ', ') from pg_roles where oid = any (polroles)))
                || coalesce(' using (' || pg_get_expr(polqual, polrelid) || ')', '')
                || coalesce(' with check (' || pg_get_expr(polwithcheck, polrelid) || ')', '')
         from pg_policy
         where polrelid = $1::regclass and polname = $2",
    )
    .bind(relation)
    .bind(policy)
    .fetch_one(admin)
    .await
    .unwrap()
}
