//! toolboxai: an education platform, run by its operators.

use tenantry::rpc::v1;
use tonic::Code;

use super::{days_pass, features, limit, provisioned, seen};
use crate::harness::{Bed, assert_refused, on_both_engines, wrong_fields};

on_both_engines! {
    a_school_lives_from_provisioning_to_deprovisioning
}

fn set_feature(feature: &str, enabled: bool) -> v1::SetFeatureRequest {
    v1::SetFeatureRequest {
        feature: feature.to_owned(),
        value: Some(v1::set_feature_request::Value::Enabled(enabled)),
        ..Default::default()
    }
}

async fn a_school_lives_from_provisioning_to_deprovisioning(t: &Bed) {
    let t = &Bed::of_product(t.engine, include_str!("toolboxai.toml")).await;
    let mut operator = t.operator();
    // Provisioning: tenant, admin, default settings, features of the tier, verified, welcome mail.
    let school = provisioned(t, v1::ProvisionTenantRequest::default()).await;
    let new = seen(t, &school.id).await;
    assert!(new.verified && new.status() == v1::TenantStatus::Trial, "{new:?}");
    assert_eq!(features(t, &school.id).await, ["ai_chat", "gamification"]);
    let mut admin = t.with_token(&school.owner.token);
    let settings = admin.tenants.get_settings(v1::GetSettingsRequest::default()).await.unwrap().into_inner();
    let settings = settings.settings.unwrap();
    let security = settings.security.unwrap();
    assert_eq!((security.password_expiry_days, security.max_sign_in_attempts), (Some(90), Some(5)));
    assert_eq!(security.session_length.unwrap().seconds, 3600);
    assert_eq!((settings.locale.as_str(), settings.branding.unwrap().theme.as_str()), ("en-US", "roblox"));
    assert_eq!(settings.compliance.unwrap().parental_consent_required, Some(true));
    assert!(settings.custom.unwrap().fields.contains_key("weekly_reports"));
    for (metric, allowed) in
        [("members", 10), ("classes", 5), ("storage", 1 << 30), ("game_sessions", 5), ("requests", 60)]
    {
        assert_eq!(limit(t, &school.id, metric).await.limit, Some(allowed), "{metric}");
    }

    // Features are toggled within what the tier allows; an upgrade brings more; an operator goes beyond.
    admin.tenants.set_feature(set_feature("gamification", false)).await.unwrap();
    let refused = admin.tenants.set_feature(set_feature("sso", true)).await;
    assert_refused(refused, Code::FailedPrecondition, "FEATURE_NOT_IN_PLAN");
    let plan = v1::ChangePlanRequest { tenant: school.id.clone(), plan: "basic".to_owned(), ..Default::default() };
    let changed = operator.tenants.change_plan(plan).await.unwrap().into_inner();
    assert_eq!(changed.gained_features, ["parent_portal", "roblox_integration"]);
    assert_eq!(features(t, &school.id).await, ["ai_chat", "parent_portal", "roblox_integration"]);
    let beyond = v1::SetFeatureRequest { tenant: school.id.clone(), r#override: true, ..set_feature("sso", true) };
    operator.tenants.set_feature(beyond).await.unwrap();
    assert!(features(t, &school.id).await.contains(&"sso".to_owned()));

    // Roles: an admin creates users, a teacher cannot create admins, a student cannot change settings.
    let (teacher, student) = (t.member(&school, "teacher").await, t.member(&school, "student").await);
    let new = t.person("new").await;
    let add = v1::AddMemberRequest { email: new.email, roles: vec!["admin".to_owned()], ..Default::default() };
    let refused = t.with_token(&teacher.token).members.add_member(add).await;
    assert_refused(refused, Code::PermissionDenied, "RANK_TOO_LOW");
    let update = v1::UpdateSettingsRequest {
        settings: Some(v1::Settings { locale: "fr-FR".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let refused = t.with_token(&student.token).tenants.update_settings(update).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");

    // The operator changes limits, for a time.
    let more = v1::SetLimitOverrideRequest {
        tenant: school.id.clone(),
        metric: "classes".to_owned(),
        value: Some(v1::set_limit_override_request::Value::Limit(40)),
        reason: "exam weeks".to_owned(),
        ..Default::default()
    };
    operator.tenants.set_limit_override(more).await.unwrap();
    let classes = limit(t, &school.id, "classes").await;
    assert_eq!((classes.limit, classes.plan_limit), (Some(40), Some(20)));
    assert_eq!(classes.source(), v1::EntitlementSource::Override);

    // Maintenance, and the end: kept or deleted.
    let flags = v1::SetTenantFlagsRequest { tenant: school.id.clone(), maintenance: Some(true), ..Default::default() };
    operator.tenants.set_tenant_flags(flags).await.unwrap();
    let busy = admin.tenants.set_feature(set_feature("ai_chat", false)).await;
    assert_refused(busy, Code::Unavailable, "TENANT_IN_MAINTENANCE");
    let end = v1::DeprovisionTenantRequest {
        tenant: school.id.clone(),
        confirm_slug: school.slug.clone(),
        delete_data: true,
        ..Default::default()
    };
    let wrong = v1::DeprovisionTenantRequest { confirm_slug: "x".to_owned(), ..end.clone() };
    assert_eq!(wrong_fields(operator.tenants.deprovision_tenant(wrong).await), ["confirm_slug"]);
    operator.tenants.deprovision_tenant(end).await.unwrap();
    assert_eq!(seen(t, &school.id).await.status(), v1::TenantStatus::Deleted);

    // Another one lets its trial end.
    let other = provisioned(t, v1::ProvisionTenantRequest::default()).await;
    days_pass(t, 15).await;
    assert_eq!(seen(t, &other.id).await.suspend_cause(), v1::SuspendCause::TrialEnded);
    // And one is made from the template for schools, with its own set of features.
    let template = v1::ProvisionTenantRequest { template: "school".to_owned(), ..Default::default() };
    let third = provisioned(t, template).await;
    assert_eq!(features(t, &third.id).await.len(), 8);
}
