//! Mail that use cases write down is sent, once, and looks like the tenant's.

use tenantry::rpc::v1;

use crate::harness::{Bed, on_both_engines, unique, until};

on_both_engines! {
    a_provisioned_administrator_is_welcomed_in_the_tenants_look_and_language
    a_message_is_sent_once_and_remembered
    mail_of_a_time_before_there_were_jobs_is_sent
}

/// Provisions a tenant; its id, and the administrator's address.
async fn provision(t: &Bed, settings: v1::Settings) -> (String, String) {
    let email = format!("{}@example.com", unique("admin"));
    let request = v1::ProvisionTenantRequest {
        display_name: "Acme & Söhne".to_owned(),
        slug: unique("acme"),
        admin_email: email.clone(),
        admin_name: "Ada".to_owned(),
        settings: Some(settings),
        ..Default::default()
    };
    let done = t.operator().tenants.provision_tenant(request).await.unwrap().into_inner();
    (done.tenant.unwrap().tenant_id, email)
}

async fn a_provisioned_administrator_is_welcomed_in_the_tenants_look_and_language(t: &Bed) {
    let branding = v1::Branding {
        logo_url: "https://acme.example/logo.png".to_owned(),
        primary_color: "#112233".to_owned(),
        ..Default::default()
    };
    let settings = v1::Settings { locale: "de-CH".to_owned(), branding: Some(branding), ..Default::default() };
    let (_, email) = provision(t, settings).await;
    let mail = t.last_mail_to(&email).await;
    for part in [
        "From: tenantry <no-reply@localhost>",
        "Auto-Submitted: auto-generated",
        "Guten Tag Ada,",
        "http://localhost:3000/sign-in",
        "<html lang=\"de\">",
        "acme.example&#x2f;logo.png",
        "#112233",
        "Acme &amp; Söhne",
    ] {
        assert!(mail.contains(part), "{part}: {mail}");
    }
}

async fn a_message_is_sent_once_and_remembered(t: &Bed) {
    let (tenant, email) = provision(t, v1::Settings::default()).await;
    t.last_mail_to(&email).await;
    let sql = "select status, ended_at is not null from outbox where tenant_id = $1";
    until("it is marked", async || {
        let rows: Vec<(i64, bool)> = t.rows(sql, &tenant).await;
        rows == [(2, true)]
    })
    .await;
    t.run_jobs().await;
    assert_eq!(t.mails_to(&email).len(), 1);
}

async fn mail_of_a_time_before_there_were_jobs_is_sent(t: &Bed) {
    let t = Bed::private(t.engine, &[]).await;
    let (tenant, email) = provision(&t, v1::Settings::default()).await;
    t.last_mail_to(&email).await;
    until("it is marked", async || {
        t.rows::<(i64,)>("select status from outbox where tenant_id = $1", &tenant).await == [(2,)]
    })
    .await;
    // As an earlier version left it: written down, and nobody at it.
    t.execute("update outbox set status = 1 where tenant_id = $1", &tenant).await;
    t.execute("delete from job where kind = 'mail' and subject <> $1", &tenant).await;
    let t = t.restart().await;
    until("it is sent again", async || {
        t.run_jobs().await;
        t.rows::<(i64,)>("select status from outbox where tenant_id = $1", &tenant).await == [(2,)]
    })
    .await;
}
