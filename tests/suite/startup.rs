//! Setting up PostgreSQL, and refusing to start on a database that is not the one this binary knows.

use std::io::Write;
use std::process::{Command, Stdio};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry::store::guard::{self, Finding, GuardError, Role};
use tenantry::store::{Store, setup};

use crate::cluster::server::binaries;
use crate::cluster::{Cluster, Database, unique_name, wish};

/// Connects, or says why not.
pub(crate) async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap_or_else(|error| panic!("connect: {error}"))
}

/// Runs statements that must succeed.
pub(crate) async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The address for a role of the server.
pub(crate) fn url_of(database: &Database, role: Role) -> &str {
    match role {
        Role::App => &database.app_url,
        Role::System => &database.system_url,
        Role::Meter => &database.meter_url,
    }
}

/// What the check as `role` finds on a new connection.
pub(crate) async fn findings(database: &Database, role: Role) -> Vec<Finding> {
    match guard::check(&mut connect(url_of(database, role)).await, role).await {
        Ok(()) => Vec::new(),
        Err(GuardError::Unsafe(findings)) => findings.0,
        Err(error) => panic!("{error}"),
    }
}

/// As everybody who sets up a database must leave it.
async fn assert_clean(database: &Database) {
    for role in [Role::App, Role::System, Role::Meter] {
        assert_eq!(findings(database, role).await, []);
    }
    let mut app = connect(&database.app_url).await;
    guard::probe(&mut app).await.unwrap();
    let rights: Vec<bool> = sqlx::query_scalar(
        "select unnest(array[has_schema_privilege('public', 'usage'), has_database_privilege(current_database(), 'temporary'),
                             has_schema_privilege('tenantry', 'create'), has_table_privilege('tenantry.credential', 'truncate')])",
    )
    .fetch_all(&mut app)
    .await
    .unwrap();
    assert_eq!(rights, [false; 4]);
}

#[tokio::test]
async fn a_second_bootstrap_changes_nothing() {
    let cluster = Cluster::shared();
    let name = unique_name();
    let first = setup::bootstrap(&cluster.admin_url(), &wish(&name)).await.unwrap();
    assert!(first.database_created);
    assert_eq!((first.from, first.to), (0, setup::known_version()));
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres")).unwrap();
    assert_eq!(first.migrations_applied.len(), files.count());

    let second = setup::bootstrap(&cluster.admin_url(), &wish(&name)).await.unwrap();
    let unchanged = setup::Report { from: first.to, to: first.to, ..setup::Report::default() };
    assert_eq!(second, unchanged);
    assert_eq!(setup::migrate(&cluster.database(&name).migrate_url).await.unwrap(), unchanged);
}

#[tokio::test]
async fn bootstraps_at_once_do_not_disturb_each_other() {
    let cluster = Cluster::private();
    let (url, name, other) = (cluster.admin_url(), unique_name(), unique_name());
    let (one, two) = (wish(&name), wish(&other));
    let reports = futures::future::try_join_all([&one, &one, &two, &one].map(|wish| setup::bootstrap(&url, wish)));
    let reports = reports.await.unwrap();
    assert_eq!(reports.iter().filter(|report| report.database_created).count(), 2);
    assert_eq!(reports.iter().map(|report| report.roles_created.len()).sum::<usize>(), 5);
    assert_eq!(reports.iter().filter(|report| !report.migrations_applied.is_empty()).count(), 2);
    assert_eq!(findings(&cluster.database(&name), Role::App).await, []);
}

#[tokio::test]
async fn an_administrator_without_superuser_can_bootstrap() {
    let cluster = Cluster::private();
    run(&mut connect(&cluster.admin_url()).await, "create role dba login createrole createdb password 'dba'").await;
    let url = setup::url_for(&cluster.admin_url(), "postgres", "dba", "dba").unwrap();
    let name = unique_name();
    for _ in 0..2 {
        setup::bootstrap(&url, &wish(&name)).await.unwrap();
    }
    assert_clean(&cluster.database(&name)).await;
}

#[tokio::test]
async fn an_administrator_can_paste_the_printed_sql_into_psql() {
    let cluster = Cluster::private();
    let name = unique_name();
    for _ in 0..2 {
        let mut psql = Command::new(binaries().join("psql"));
        psql.args(["--no-psqlrc", "--quiet", &cluster.admin_url()]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut psql = psql.spawn().expect("psql, from `apt-get install postgresql`");
        let sql = setup::bootstrap_sql(&wish(&name)).unwrap();
        psql.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        assert!(psql.wait().unwrap().success());
    }
    let database = cluster.database(&name);
    assert!(!setup::migrate(&database.migrate_url).await.unwrap().migrations_applied.is_empty());
    assert_clean(&database).await;
}

#[tokio::test]
async fn a_database_of_somebody_else_is_left_alone() {
    let cluster = Cluster::shared();
    let name = unique_name();
    run(&mut connect(&cluster.admin_url()).await, &format!("create database \"{name}\"")).await;
    let error = setup::bootstrap(&cluster.admin_url(), &wish(&name)).await.unwrap_err();
    assert!(error.to_string().contains("alter database"), "{error}");
}

#[tokio::test]
async fn a_clean_database_passes_every_check() {
    let database = Cluster::shared().fresh_database().await;
    guard::check_version(&mut connect(&database.app_url).await).await.unwrap();
    for role in [Role::App, Role::System, Role::Meter] {
        let mut conn = connect(url_of(&database, role)).await;
        guard::check(&mut conn, role).await.unwrap();
        let path: String = sqlx::query_scalar("show search_path").fetch_one(&mut conn).await.unwrap();
        assert_eq!(path, "tenantry");
    }
    assert_clean(&database).await;
}

#[tokio::test]
async fn other_roles_are_refused() {
    let database = Cluster::shared().fresh_database().await;
    for url in [&database.migrate_url, &database.admin_url, &database.system_url, &database.meter_url] {
        let error = guard::check(&mut connect(url).await, Role::App).await.unwrap_err();
        assert_eq!(error.findings()[0].kind, "wrong role");
        assert!(error.to_string().contains("let TENANTRY_DATABASE_URL name tenantry_app"), "{error}");
    }
    let error = guard::check(&mut connect(&database.app_url).await, Role::Meter).await.unwrap_err();
    assert!(error.to_string().contains("let TENANTRY_METER_DATABASE_URL name tenantry_meter"), "{error}");
    let mut owner = connect(&database.migrate_url).await;
    run(&mut owner, "set role tenantry_owner").await;
    assert!(guard::check(&mut owner, Role::App).await.is_err());
    let mut disguised = connect(&database.admin_url).await;
    run(&mut disguised, "set role tenantry_app").await;
    let error = guard::check(&mut disguised, Role::App).await.unwrap_err();
    assert_eq!(error.findings()[0].kind, "session_user is not current_user");
}

#[tokio::test]
async fn a_database_of_another_version_is_refused() {
    let database = Cluster::shared().fresh_database().await;
    let mut admin = connect(&database.admin_url).await;
    let mut app = connect(&database.app_url).await;
    run(&mut admin, "insert into tenantry._sqlx_migrations values (9999, 'later', now(), true, '', 0)").await;
    let error = guard::check_version(&mut app).await.unwrap_err().to_string();
    let known = setup::known_version();
    assert_eq!(error, format!("database is at migration 9999, this tenantry knows {known}: run the newer tenantry"));
    assert_eq!(setup::migrate(&database.migrate_url).await.unwrap_err().to_string(), error);

    run(&mut admin, "update tenantry._sqlx_migrations set version = version - 9999").await;
    let error = guard::check_version(&mut app).await.unwrap_err();
    assert!(error.to_string().ends_with("run `tenantry migrate`"), "{error}");

    run(&mut admin, "delete from tenantry._sqlx_migrations").await;
    let error = guard::check_version(&mut app).await.unwrap_err();
    assert!(error.to_string().ends_with("run `tenantry migrate --admin-url ...`"), "{error}");
}

#[tokio::test]
async fn a_database_without_tenantry_is_refused() {
    let cluster = Cluster::shared();
    cluster.fresh_database().await;
    let name = unique_name();
    run(&mut connect(&cluster.admin_url()).await, &format!("create database \"{name}\"")).await;
    let empty = cluster.database(&name);
    let error = guard::check_version(&mut connect(&empty.app_url).await).await.unwrap_err();
    assert!(error.to_string().contains("run `tenantry migrate --admin-url ...`"), "{error}");
    let error = setup::migrate(&empty.migrate_url).await.unwrap_err();
    assert!(error.to_string().contains("no schema tenantry"), "{error}");
    let error = setup::migrate(&empty.app_url).await.unwrap_err();
    assert!(error.to_string().contains("may not act as tenantry_owner"), "{error}");
}

/// Leaves the cluster with a database as tenantry left it when it knew no `tenantry_meter`, and migrations up to 17.
async fn of_before_the_meter(cluster: &Cluster) -> Database {
    let mut admin = connect(&cluster.admin_url()).await;
    let name = unique_name();
    let sql = setup::bootstrap_sql(&wish(&name)).unwrap();
    let roles = sql.split("select pg_advisory_lock(7261, 2);").nth(1).unwrap().split("select $sql$").next().unwrap();
    run(&mut admin, roles).await;
    run(&mut admin, &format!("create database \"{name}\" owner tenantry_owner")).await;
    let database = cluster.database(&name);
    let mut inside = connect(&database.admin_url).await;
    run(&mut inside, sql.split(&format!("\\c \"{name}\"")).nth(1).unwrap()).await;

    let before = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres")).unwrap() {
        let file = file.unwrap();
        if *file.file_name() < *std::ffi::OsStr::new("0018") {
            std::fs::copy(file.path(), before.path().join(file.file_name())).unwrap();
        }
    }
    let mut owner = connect(&database.migrate_url).await;
    run(&mut owner, "set role tenantry_owner").await;
    let migrations = sqlx::migrate::Migrator::new(before.path()).await.unwrap();
    migrations.run_direct(None, &mut owner, false).await.unwrap();
    run(&mut owner, "grant select on tenantry._sqlx_migrations to tenantry_app").await;
    run(&mut inside, "drop owned by tenantry_meter; drop role tenantry_meter").await;
    database
}

#[tokio::test]
async fn a_database_without_the_newest_role_is_migrated_once_an_administrator_has_made_it() {
    let cluster = Cluster::private();
    let database = of_before_the_meter(&cluster).await;
    let name = database.app_url.rsplit('/').next().unwrap();
    let serve = async || Store::open_postgres(&database.app_url, &database.system_url, &database.meter_url, 4).await;
    let error = serve().await.unwrap_err().to_string();
    let known = setup::known_version();
    assert_eq!(error, format!("database is at migration 17, this tenantry needs {known}: run `tenantry migrate`"));

    let told = "tenantry_meter cannot connect to this database yet, and this tenantry needs it: \
                run `tenantry migrate --admin-url ...` again";
    let error = setup::migrate(&database.migrate_url).await.unwrap_err().to_string();
    assert!(error.starts_with(told), "{error}");
    // The role alone, as another database on the same server brings it, is not enough.
    setup::bootstrap(&cluster.admin_url(), &wish(&unique_name())).await.unwrap();
    let error = setup::migrate(&database.migrate_url).await.unwrap_err().to_string();
    assert!(error.starts_with(told), "{error}");
    let error = serve().await.unwrap_err().to_string();
    assert!(error.contains("is at migration 17"), "nothing was changed: {error}");

    let report = setup::bootstrap(&cluster.admin_url(), &wish(name)).await.unwrap();
    assert_eq!((report.from, report.to), (17, known));
    assert_clean(&database).await;
    serve().await.unwrap().close().await;
    assert!(setup::migrate(&database.migrate_url).await.unwrap().migrations_applied.is_empty());
}

#[tokio::test]
async fn a_policy_changed_by_hand_is_not_blessed_by_a_migration() {
    let database = Cluster::shared().fresh_database().await;
    let mut admin = connect(&database.admin_url).await;
    run(&mut admin, "alter policy user_only on tenantry.device using (true)").await;
    let error = setup::migrate(&database.migrate_url).await.unwrap_err().to_string();
    assert!(error.contains("unexpected user_only on tenantry.device; 1 recorded ones are gone"), "{error}");
    let restored = "alter policy user_only on tenantry.device
        using (user_id = nullif(current_setting('tenantry.user', true), '')::uuid)";
    run(&mut admin, restored).await;
    setup::migrate(&database.migrate_url).await.unwrap();

    run(&mut admin, "alter policy user_only on tenantry.device to public").await;
    let error = setup::migrate(&database.migrate_url).await.unwrap_err().to_string();
    assert!(error.contains("user_only on tenantry.device"), "the roles of a policy count too: {error}");
    let found = findings(&database, Role::App).await;
    assert!(found.iter().any(|f| f.kind == "policy reaches me and is not in the list"), "{found:?}");

    run(&mut admin, "drop policy user_only on tenantry.device").await;
    let error = setup::migrate(&database.migrate_url).await.unwrap_err().to_string();
    assert!(error.contains("left: 1 recorded ones are gone;"), "{error}");
}

#[tokio::test]
async fn a_migration_that_was_cut_short_can_be_repeated() {
    let database = Cluster::shared().fresh_database().await;
    // As a run leaves it that ended between the migrations and the list.
    run(&mut connect(&database.admin_url).await, "delete from tenantry.expected_policy").await;
    assert!(!findings(&database, Role::App).await.is_empty());
    setup::migrate(&database.migrate_url).await.unwrap();
    assert_clean(&database).await;
}
