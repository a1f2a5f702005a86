//! The five products of the acceptance table, each with its own catalogue: a tenant's whole life, over gRPC alone, with the
//! clock moved by the test.

use chrono::TimeDelta;
use tenantry::rpc::v1;

use crate::harness::{Bed, Person, Tenant, unique};

mod mercura;
mod quizmarker;
mod smartmaintenance;
mod timetracker;
mod toolboxai;

/// Lets time pass, for the server and its jobs; whoever is to go on signs in again afterwards.
async fn days_pass(t: &Bed, days: i64) {
    t.clock.advance(TimeDelta::days(days));
    t.run_jobs().await;
}

/// A tenant made by the operator, on a plan, with its administrator signed in.
async fn provisioned(t: &Bed, request: v1::ProvisionTenantRequest) -> Tenant {
    let slug = unique("org");
    let email = format!("{}@example.com", unique("admin"));
    let request = v1::ProvisionTenantRequest {
        display_name: if request.display_name.is_empty() { slug.clone() } else { request.display_name.clone() },
        slug: slug.clone(),
        admin_email: email.clone(),
        ..request
    };
    let done = t.operator().tenants.provision_tenant(request).await.expect("is provisioned").into_inner();
    let id = done.tenant.expect("a tenant").tenant_id;
    let login = v1::LoginRequest { email: email.clone(), password: done.admin_password, ..Default::default() };
    let signed_in = t.anonymous().auth.login(login).await.expect("signs in").into_inner();
    let token = signed_in.access_token.expect("a token").token;
    let refresh = signed_in.refresh_token.expect("a refresh token").token;
    Tenant { id, slug, owner: Person { id: signed_in.user.expect("a user").user_id, email, token, refresh } }
}

/// The tenant as the operator sees it.
async fn seen(t: &Bed, id: &str) -> v1::Tenant {
    let get = v1::GetTenantRequest { tenant: id.to_owned() };
    t.operator().tenants.get_tenant(get).await.expect("is there").into_inner().tenant.expect("a tenant")
}

/// The tenant's subscription as the operator sees it.
async fn subscription(t: &Bed, id: &str) -> v1::Subscription {
    let get = v1::GetSubscriptionRequest { tenant: id.to_owned() };
    let found = t.operator().tenants.get_subscription(get).await.expect("is there").into_inner();
    found.subscription.expect("a subscription")
}

/// What the billing provider tells, by way of the product's webhook handler.
async fn billed(t: &Bed, id: &str, kind: v1::BillingEventKind) -> v1::RecordBillingEventResponse {
    let key = t.service_key(&["billing.record"]).await;
    let request = v1::RecordBillingEventRequest {
        tenant: id.to_owned(),
        provider: "stripe".to_owned(),
        event_id: unique("evt"),
        kind: kind.into(),
        amount: 2900,
        currency: "USD".to_owned(),
        provider_ids: Some(v1::ProviderIds { customer: "cus_1".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    t.with_key(&key).tenants.record_billing_event(request).await.expect("is taken").into_inner()
}

/// A limit of the tenant as the operator sees it.
async fn limit(t: &Bed, id: &str, metric: &str) -> v1::Limit {
    let list = v1::ListLimitsRequest { tenant: id.to_owned() };
    let limits = t.operator().tenants.list_limits(list).await.expect("limits").into_inner().limits;
    limits.into_iter().find(|limit| limit.metric == metric).expect("a limit")
}

/// The names of the features that the tenant has.
async fn features(t: &Bed, id: &str) -> Vec<String> {
    let list = v1::ListFeaturesRequest { tenant: id.to_owned() };
    let features = t.operator().tenants.list_features(list).await.expect("features").into_inner().features;
    features.into_iter().filter(|feature| feature.enabled).map(|feature| feature.feature).collect()
}

/// Deletes a tenant, lets its time come, and sees that it is gone.
async fn deleted_and_purged(t: &Bed, tenant: &Tenant) {
    let delete = v1::DeleteTenantRequest { tenant: tenant.id.clone(), ..Default::default() };
    let gone = t.operator().tenants.delete_tenant(delete).await.expect("is deleted").into_inner().tenant.unwrap();
    assert_eq!(gone.status(), v1::TenantStatus::Deleted);
    days_pass(t, 31).await;
    crate::harness::until("it is purged", async || {
        t.run_jobs().await;
        let slug = v1::CheckSlugRequest { slug: tenant.slug.clone() };
        t.anonymous().tenants.check_slug(slug).await.unwrap().into_inner().available
    })
    .await;
    let get = v1::GetTenantRequest { tenant: tenant.id.clone() };
    assert!(t.operator().tenants.get_tenant(get).await.is_err());
}
