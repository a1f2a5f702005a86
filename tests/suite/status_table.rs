//! What a tenant's status opens and closes, on one page: every method, called by the owner and by an operator, in a tenant of
//! every status, against a golden file; and each cell against the method's access option.

use chrono::TimeDelta;
use tenantry::rpc::access::{Access, TenantRule, Who};
use tenantry::rpc::v1;

use crate::golden::{Caller, Cells, compare, fill, render};
use crate::harness::{Bed, Engine, Person, Tenant, unique};
use crate::raw;

/// A product whose tenants come into every status: the default plan is a trial, another one has to be paid.
const PRODUCT: &str = r#"
default_plan = "taste"
[metrics.quizzes]
unit = "quizzes"
[plans.taste]
trial = { days = 2, then = "suspend" }
[plans.free]
[plans.paid]
currency = "EUR"
price = { month = 900 }
grace_days = 3
"#;

/// The marks of the columns of one status, its words, and the tenant.
struct Column {
    marks: [&'static str; 2],
    words: [&'static str; 2],
    status: Status,
    tenant: Tenant,
}

/// What the access option has a say in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Open,
    Suspended,
    Cancelled,
    Pending,
    Deleted,
    Maintenance,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_status_closes_is_as_the_golden_page_says_on_sqlite() {
    check(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_status_closes_is_as_the_golden_page_says_on_postgres() {
    check(Engine::Postgres).await;
}

async fn check(engine: Engine) {
    let t = Bed::of_product(engine, PRODUCT).await;
    let columns = columns(&t).await;
    let (mut cells, mut callers) = (Cells::new(), Vec::new());
    for column in &columns {
        let tenant = &column.tenant;
        let owner = Caller::person(column.marks[0], column.words[0], &tenant.owner).also("x-tenant-id", &tenant.id);
        let operator = Caller::new(column.marks[1], column.words[1], &[("x-api-key", &t.operator_key)]);
        let fields =
            [("request_id", "not-a-uuid"), ("user_id", tenant.owner.id.as_str()), ("slug", tenant.slug.as_str())];
        for caller in [owner, operator.naming(&tenant.id)] {
            fill(&mut cells, &t, &caller, &fields).await;
            callers.push(caller);
        }
    }
    for column in &columns {
        keeps_its_promise(column, &cells);
    }
    let about = "What a status closes. Made by status_table.rs, which calls every method in a tenant of every status, as its \
                 owner and as an operator; do not edit.";
    compare("status.golden", &render(about, &callers, &cells), "what a status closes");
}

/// A status refuses exactly where the access option does not allow it.
fn keeps_its_promise(column: &Column, cells: &Cells) {
    for method in raw::methods() {
        let access = raw::access(&method);
        if access.tenant != TenantRule::Required {
            continue;
        }
        for (i, mark) in column.marks.into_iter().enumerate() {
            let operator = i == 1;
            let cell = cells[&(method.full_name().to_owned(), mark)].as_str();
            let refused = matches!(cell, "shut" | "ended" | "pend" | "gone" | "maint");
            let may = if operator {
                access.who != Who::SignedIn || access.also_operator
            } else {
                matches!(access.who, Who::Permission(_) | Who::SignedIn)
            };
            let wanted = refusal(access, column.status, operator).filter(|_| may);
            match wanted {
                Some(wanted) => assert_eq!(cell, wanted, "{} in {mark}", method.full_name()),
                None => assert!(!refused, "{} in {mark}: {cell}, and the option allows it", method.full_name()),
            }
        }
    }
}

/// The mark with which the option refuses a status; none when it does not.
fn refusal(access: &Access, status: Status, operator: bool) -> Option<&'static str> {
    match status {
        Status::Suspended if !access.allow_suspended => Some("shut"),
        Status::Cancelled if !access.allow_cancelled => Some("ended"),
        Status::Pending if !access.allow_pending => Some("pend"),
        Status::Deleted if !access.allow_deleted => Some("gone"),
        Status::Maintenance if access.writes && !access.allow_maintenance && !operator => Some("maint"),
        _ => None,
    }
}

/// A tenant of every status. Those that time makes come first, then everybody signs in.
async fn columns(t: &Bed) -> Vec<Column> {
    let (unpaid, tasted) = (t.tenant("unpaid").await, t.tenant("tasted").await);
    change_plan(t, &unpaid, "paid").await;
    t.clock.advance(TimeDelta::days(4));
    let again = async |tenant: Tenant| {
        let owner = t.login(&tenant.owner, &tenant.id).await;
        Tenant { owner, ..tenant }
    };
    let (unpaid, tasted) = (again(unpaid).await, again(tasted).await);
    let active = t.tenant("active").await;
    change_plan(t, &active, "free").await;
    let due = t.tenant("due").await;
    change_plan(t, &due, "paid").await;
    let [member, operator, paused, cancelled, deleted, maintenance] =
        [closed(t).await, closed(t).await, closed(t).await, closed(t).await, closed(t).await, closed(t).await];
    let suspend = |tenant: &Tenant| v1::SuspendTenantRequest {
        tenant: tenant.id.clone(),
        reason: "so".to_owned(),
        ..Default::default()
    };
    t.with_token(&member.owner.token).tenants.suspend_tenant(suspend(&member)).await.expect("suspends");
    t.operator().tenants.suspend_tenant(suspend(&operator)).await.expect("suspends");
    let mut owner = t.with_token(&paused.owner.token);
    owner.tenants.pause_subscription(v1::PauseSubscriptionRequest::default()).await.expect("pauses");
    let mut owner = t.with_token(&cancelled.owner.token);
    owner.tenants.cancel_subscription(v1::CancelSubscriptionRequest::default()).await.expect("cancels");
    let mut owner = t.with_token(&deleted.owner.token);
    owner.tenants.delete_tenant(v1::DeleteTenantRequest::default()).await.expect("deletes");
    let flags =
        v1::SetTenantFlagsRequest { tenant: maintenance.id.clone(), maintenance: Some(true), ..Default::default() };
    t.operator().tenants.set_tenant_flags(flags).await.expect("sets flags");
    let column = |marks, words, status, tenant| Column { marks, words, status, tenant };
    vec![
        column(["pen/w", "pen/o"], ["owner, pending", "operator, the same"], Status::Pending, pending(t).await),
        column(["tri/w", "tri/o"], ["owner, on trial", "operator, the same"], Status::Open, t.tenant("trial").await),
        column(["act/w", "act/o"], ["owner, active", "operator, the same"], Status::Open, active),
        column(["due/w", "due/o"], ["owner, past due within grace", "operator, the same"], Status::Open, due),
        column(["mem/w", "mem/o"], ["owner, suspended by a member", "operator, the same"], Status::Suspended, member),
        column(
            ["ope/w", "ope/o"],
            ["owner, suspended by an operator", "operator, the same"],
            Status::Suspended,
            operator,
        ),
        column(["bil/w", "bil/o"], ["owner, suspended for billing", "operator, the same"], Status::Suspended, unpaid),
        column(["pau/w", "pau/o"], ["owner, paused", "operator, the same"], Status::Suspended, paused),
        column(["end/w", "end/o"], ["owner, the trial has ended", "operator, the same"], Status::Suspended, tasted),
        column(["can/w", "can/o"], ["owner, cancelled", "operator, the same"], Status::Cancelled, cancelled),
        column(["del/w", "del/o"], ["owner, deleted", "operator, the same"], Status::Deleted, deleted),
        column(["mai/w", "mai/o"], ["owner, in maintenance", "operator, the same"], Status::Maintenance, maintenance),
    ]
}

/// A tenant to be closed in some way.
async fn closed(t: &Bed) -> Tenant {
    let tenant = t.tenant("closed").await;
    change_plan(t, &tenant, "free").await;
    tenant
}

async fn pending(t: &Bed) -> Tenant {
    let owner: Person = t.person("pending").await;
    let request = v1::ProvisionTenantRequest {
        display_name: "Pending".to_owned(),
        slug: unique("pending"),
        plan: "free".to_owned(),
        admin_email: owner.email.clone(),
        pending: true,
        ..Default::default()
    };
    let made = t.operator().tenants.provision_tenant(request).await.expect("provisions").into_inner();
    let tenant = made.tenant.expect("a tenant");
    assert_eq!(tenant.status(), v1::TenantStatus::Pending);
    Tenant { id: tenant.tenant_id, slug: tenant.slug, owner }
}

/// As the owner, who sees to no payment.
async fn change_plan(t: &Bed, tenant: &Tenant, plan: &str) {
    let request = v1::ChangePlanRequest { plan: plan.to_owned(), ..Default::default() };
    // A trial goes on on a plan with a price: out of it by way of one without.
    let mut owner = t.with_token(&tenant.owner.token);
    let free = v1::ChangePlanRequest { plan: "free".to_owned(), ..Default::default() };
    owner.tenants.change_plan(free).await.expect("changes");
    owner.tenants.change_plan(request).await.expect("changes");
}
