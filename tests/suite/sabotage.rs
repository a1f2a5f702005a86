//! Every hole that the start-up check knows: made, found, and mended with the statement that the finding names.

use sqlx::Connection;
use tenantry::store::Store;
use tenantry::store::guard::{self, Role};
use tenantry::store::setup::SERVER_ROLES;

use crate::cluster::{Cluster, Database};
use crate::startup::{connect, findings, run};

/// Breaks something, expects a finding of `kind`, mends it as the findings say (and with `undo`), and expects none.
async fn caught_and_mended(database: &Database, sabotage: &str, kind: &str, undo: &str) {
    caught_and_mended_as(Role::App, database, (sabotage, kind, undo)).await;
}

/// The same, found by the check as one of the server's roles.
async fn caught_and_mended_as(role: Role, database: &Database, (sabotage, kind, undo): (&str, &str, &str)) {
    let mut admin = connect(&database.admin_url).await;
    run(&mut admin, sabotage).await;
    let found = findings(database, role).await;
    assert!(found.iter().any(|finding| finding.kind == kind), "{sabotage}: {found:?}");
    for finding in &found {
        run(&mut admin, &finding.mend).await;
    }
    run(&mut admin, undo).await;
    assert_eq!(findings(database, role).await, [], "after mending {sabotage}");
    admin.close().await.unwrap();
}

#[tokio::test]
async fn holes_in_the_schema_are_caught() {
    let database = Cluster::shared().fresh_database().await;
    let (unforced, unfiltered) = ("no forced row level security", "unfiltered relation granted");
    for (sabotage, kind) in [
        ("alter table tenantry.membership no force row level security", unforced),
        ("alter table tenantry.credential disable row level security", unforced),
        ("create view tenantry.v as table tenantry.tenant; grant select on tenantry.v to public", unfiltered),
        (
            "create materialized view tenantry.m as table tenantry.tenant; grant select on tenantry.m to tenantry_app",
            unfiltered,
        ),
        ("grant truncate on tenantry.audit_event to tenantry_app", "privilege that steps round policies"),
        ("create function tenantry.f() returns int language sql security definer as 'select 1'", "security definer"),
        ("grant create on schema tenantry to tenantry_app", "may create in schema"),
        ("grant create on schema public to public", "may create in schema"),
        ("grant insert on tenantry.expected_policy to tenantry_app", "may write the list of policies"),
        ("create policy extra on tenantry.tenant using (true)", "policy reaches me and is not in the list"),
    ] {
        caught_and_mended(&database, sabotage, kind, "").await;
    }
}

#[tokio::test]
async fn new_tables_without_locks_are_caught() {
    let database = Cluster::shared().fresh_database().await;
    let late = "create table tenantry.late (tenant_id uuid); grant select on tenantry.late to tenantry_app";
    caught_and_mended(&database, late, "no forced row level security", "drop table tenantry.late").await;
    let closed = "create table tenantry.late (tenant_id uuid);
        alter table tenantry.late enable row level security, force row level security";
    caught_and_mended(&database, closed, "no policy", "drop table tenantry.late").await;
    let parted = "create table tenantry.parted (tenant_id uuid) partition by hash (tenant_id);
        create table tenantry.part partition of tenantry.parted for values with (modulus 1, remainder 0);
        grant select on tenantry.parted, tenantry.part to tenantry_app";
    caught_and_mended(&database, parted, "partition granted directly", "drop table tenantry.parted").await;
}

#[tokio::test]
async fn changed_policies_are_caught() {
    let database = Cluster::shared().fresh_database().await;
    let restore = "drop policy if exists tenant_only on tenantry.membership;
        create policy tenant_only on tenantry.membership for all to tenantry_app
          using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
          with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)";
    let weaken = "alter policy tenant_only on tenantry.membership using (true)";
    caught_and_mended(&database, weaken, "policy reaches me and is not in the list", restore).await;
    caught_and_mended(&database, "drop policy tenant_only on tenantry.membership", "policies are gone", restore).await;
}

#[tokio::test]
async fn roles_that_can_do_more_are_caught() {
    let cluster = Cluster::private();
    let database = cluster.fresh_database().await;
    let name = database.app_url.rsplit('/').next().unwrap();
    run(&mut connect(&cluster.admin_url()).await, "create role strong nologin bypassrls").await;
    for (sabotage, kind) in [
        ("alter role tenantry_app superuser", "role can bypass"),
        ("alter role tenantry_app bypassrls", "role can bypass"),
        ("alter role tenantry_app createrole", "role can bypass"),
        ("alter role tenantry_app replication", "role can bypass"),
        ("grant strong to tenantry_app", "role can bypass"),
        ("grant pg_read_all_data to tenantry_app", "role can bypass"),
        ("grant tenantry_owner to tenantry_app", "owns"),
        ("alter role tenantry_app set synchronous_commit = off", "setting"),
        (&format!("alter role tenantry_app in database \"{name}\" set synchronous_commit = local"), "setting"),
        (&format!("alter database \"{name}\" set row_security = off"), "setting"),
        ("alter table tenantry.device owner to tenantry_app", "owns"),
    ] {
        caught_and_mended(&database, sabotage, kind, "").await;
    }
}

#[tokio::test]
async fn whatever_opens_more_to_the_commit_lanes_is_caught() {
    let database = Cluster::shared().fresh_database().await;
    let (beyond, policy) = ("privilege beyond the commit lanes", "policy reaches me and is not in the list");
    let restore = "drop policy if exists meter_all on tenantry.quota_hold;
        create policy meter_all on tenantry.quota_hold for all to tenantry_meter using (true) with check (true)";
    for (sabotage, kind, undo) in [
        ("grant select on tenantry.membership to tenantry_meter", beyond, ""),
        ("grant select (email) on tenantry.user_account to tenantry_meter", beyond, ""),
        ("grant delete on tenantry.session to tenantry_meter", beyond, ""),
        ("grant insert (tenant_id) on tenantry.webhook to tenantry_meter", beyond, ""),
        // Without rows of tenants, and so without policies: here the grant alone shows everything.
        ("grant select on tenantry.signing_key to tenantry_meter", beyond, ""),
        ("grant select on tenantry.attempt to public", beyond, ""),
        ("create policy meter_all on tenantry.membership to tenantry_meter using (true)", policy, ""),
        ("create policy extra on tenantry.tenant for select using (true)", policy, ""),
        ("alter policy meter_all on tenantry.quota_hold using (expires_at > now())", policy, restore),
        ("drop policy meter_all on tenantry.quota_hold", "policies are gone", restore),
        ("alter table tenantry.quota_lease no force row level security", "no forced row level security", ""),
        ("grant truncate on tenantry.usage_event to tenantry_meter", "privilege that steps round policies", ""),
        (
            "create view tenantry.v as table tenantry.tenant; grant select on tenantry.v to tenantry_meter",
            "unfiltered relation granted",
            "drop view tenantry.v",
        ),
        ("grant insert on tenantry.expected_policy to tenantry_meter", "may write the list of policies", ""),
        ("grant create on schema tenantry to tenantry_meter", "may create in schema", ""),
    ] {
        caught_and_mended_as(Role::Meter, &database, (sabotage, kind, undo)).await;
    }
}

#[tokio::test]
async fn a_role_of_the_commit_lanes_that_can_do_more_is_caught() {
    let cluster = Cluster::private();
    let database = cluster.fresh_database().await;
    for (sabotage, kind) in [
        ("alter role tenantry_meter superuser", "role can bypass"),
        ("alter role tenantry_meter bypassrls", "role can bypass"),
        ("grant pg_read_all_data to tenantry_meter", "role can bypass"),
        ("grant tenantry_owner to tenantry_meter", "owns"),
        ("alter table tenantry.quota_lease owner to tenantry_meter", "owns"),
        // The mend takes the role away again, and not that role's policies.
        ("grant tenantry_app to tenantry_meter", "policy reaches me and is not in the list"),
        ("alter role tenantry_meter set synchronous_commit = off", "setting"),
    ] {
        caught_and_mended_as(Role::Meter, &database, (sabotage, kind, "")).await;
        assert_eq!(findings(&database, Role::App).await, [], "after mending {sabotage}");
    }
    run(&mut connect(&database.admin_url).await, "grant tenantry_meter to tenantry_app").await;
    let found = findings(&database, Role::App).await;
    assert!(
        !found.is_empty() && found.iter().all(|f| f.mend == "revoke tenantry_meter from tenantry_app"),
        "{found:?}"
    );
}

#[tokio::test]
async fn no_server_starts_while_one_of_its_roles_can_do_more() {
    let database = Cluster::shared().fresh_database().await;
    let mut admin = connect(&database.admin_url).await;
    let open = async || Store::open_postgres(&database.app_url, &database.system_url, &database.meter_url, 4).await;
    for role in SERVER_ROLES {
        run(&mut admin, &format!("grant truncate on tenantry.usage_event to {role}")).await;
        let error = open().await.unwrap_err().to_string();
        let mend = format!("revoke truncate, references, trigger on tenantry.usage_event from public, {role}");
        assert!(error.contains(&mend), "{error}");
        run(&mut admin, &mend).await;
    }
    open().await.unwrap().close().await;
}

#[tokio::test]
async fn a_superuser_is_one_finding_and_not_fifty() {
    let cluster = Cluster::private();
    let database = cluster.fresh_database().await;
    run(&mut connect(&cluster.admin_url()).await, "alter role tenantry_app superuser").await;
    let found = findings(&database, Role::App).await;
    assert_eq!(found.len(), 1, "{found:?}");
}

#[tokio::test]
async fn the_probe_finds_tables_that_show_or_take_rows_of_others() {
    let database = Cluster::shared().fresh_database().await;
    let mut admin = connect(&database.admin_url).await;
    run(&mut admin, "insert into tenantry.credential values (gen_random_uuid(), '', now())").await;
    run(&mut admin, "alter table tenantry.credential disable row level security").await;
    let error = guard::probe(&mut connect(&database.app_url).await).await.unwrap_err();
    let kinds: Vec<_> = error.findings().iter().map(|finding| finding.kind.as_str()).collect();
    assert_eq!(kinds, ["shows rows", "takes rows", "shows rows", "takes rows"]);
}
