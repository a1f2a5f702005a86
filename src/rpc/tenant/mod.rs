//! `TenantService`: which file serves which method. Each function decodes, calls the use case and encodes.

mod audit;
mod bulk;
mod catalogue;
mod changes;
mod domains;
mod entitlements;
mod import_items;
mod provisioning;
mod settings;
mod sso;
mod subscription;
mod tenants;
mod webhooks;

use tonic::{Request, Response, Status, Streaming};

use super::status::respond;
use super::{Services, v1};

super::served! { v1::tenant_service_server::TenantService:
    create_tenant(CreateTenantRequest) -> CreateTenantResponse = tenants;
    get_tenant(GetTenantRequest) -> GetTenantResponse = tenants;
    list_my_tenants(ListMyTenantsRequest) -> ListMyTenantsResponse = tenants;
    list_tenants(ListTenantsRequest) -> ListTenantsResponse = tenants;
    update_tenant(UpdateTenantRequest) -> UpdateTenantResponse = tenants;
    check_slug(CheckSlugRequest) -> CheckSlugResponse = tenants;
    resolve_tenant(ResolveTenantRequest) -> ResolveTenantResponse = tenants;
    suspend_tenant(SuspendTenantRequest) -> SuspendTenantResponse = tenants;
    activate_tenant(ActivateTenantRequest) -> ActivateTenantResponse = tenants;
    delete_tenant(DeleteTenantRequest) -> DeleteTenantResponse = tenants;
    undelete_tenant(UndeleteTenantRequest) -> UndeleteTenantResponse = tenants;
    apply_catalogue(ApplyCatalogueRequest) -> ApplyCatalogueResponse = catalogue;
    get_catalogue(GetCatalogueRequest) -> GetCatalogueResponse = catalogue;
    list_plans(ListPlansRequest) -> ListPlansResponse = catalogue;
    get_subscription(GetSubscriptionRequest) -> GetSubscriptionResponse = subscription;
    change_plan(ChangePlanRequest) -> ChangePlanResponse = subscription;
    cancel_subscription(CancelSubscriptionRequest) -> CancelSubscriptionResponse = subscription;
    resume_subscription(ResumeSubscriptionRequest) -> ResumeSubscriptionResponse = subscription;
    renew_subscription(RenewSubscriptionRequest) -> RenewSubscriptionResponse = subscription;
    pause_subscription(PauseSubscriptionRequest) -> PauseSubscriptionResponse = subscription;
    record_billing_event(RecordBillingEventRequest) -> RecordBillingEventResponse = subscription;
    list_limits(ListLimitsRequest) -> ListLimitsResponse = entitlements;
    set_limit_override(SetLimitOverrideRequest) -> SetLimitOverrideResponse = entitlements;
    list_features(ListFeaturesRequest) -> ListFeaturesResponse = entitlements;
    set_feature(SetFeatureRequest) -> SetFeatureResponse = entitlements;
    get_settings(GetSettingsRequest) -> GetSettingsResponse = settings;
    update_settings(UpdateSettingsRequest) -> UpdateSettingsResponse = settings;
    list_integrations(ListIntegrationsRequest) -> ListIntegrationsResponse = settings;
    set_integration(SetIntegrationRequest) -> SetIntegrationResponse = settings;
    delete_integration(DeleteIntegrationRequest) -> DeleteIntegrationResponse = settings;
    get_sso_connection(GetSsoConnectionRequest) -> GetSsoConnectionResponse = sso;
    set_sso_connection(SetSsoConnectionRequest) -> SetSsoConnectionResponse = sso;
    delete_sso_connection(DeleteSsoConnectionRequest) -> DeleteSsoConnectionResponse = sso;
    test_sso_connection(TestSsoConnectionRequest) -> TestSsoConnectionResponse = sso;
    change_slug(ChangeSlugRequest) -> ChangeSlugResponse = domains;
    add_domain(AddDomainRequest) -> AddDomainResponse = domains;
    verify_domain(VerifyDomainRequest) -> VerifyDomainResponse = domains;
    list_domains(ListDomainsRequest) -> ListDomainsResponse = domains;
    remove_domain(RemoveDomainRequest) -> RemoveDomainResponse = domains;
    provision_tenant(ProvisionTenantRequest) -> ProvisionTenantResponse = provisioning;
    deprovision_tenant(DeprovisionTenantRequest) -> DeprovisionTenantResponse = provisioning;
    purge_tenant(PurgeTenantRequest) -> PurgeTenantResponse = provisioning;
    set_tenant_flags(SetTenantFlagsRequest) -> SetTenantFlagsResponse = provisioning;
    create_webhook(CreateWebhookRequest) -> CreateWebhookResponse = webhooks;
    list_webhooks(ListWebhooksRequest) -> ListWebhooksResponse = webhooks;
    update_webhook(UpdateWebhookRequest) -> UpdateWebhookResponse = webhooks;
    delete_webhook(DeleteWebhookRequest) -> DeleteWebhookResponse = webhooks;
    test_webhook(TestWebhookRequest) -> TestWebhookResponse = webhooks;
    list_webhook_deliveries(ListWebhookDeliveriesRequest) -> ListWebhookDeliveriesResponse = webhooks;
    rotate_webhook_secret(RotateWebhookSecretRequest) -> RotateWebhookSecretResponse = webhooks;
    list_audit_events(ListAuditEventsRequest) -> ListAuditEventsResponse = audit;
    list_platform_audit_events(ListPlatformAuditEventsRequest) -> ListPlatformAuditEventsResponse = audit;
    list_changes(ListChangesRequest) -> ListChangesResponse = changes;
    lookup_external_id(LookupExternalIdRequest) -> LookupExternalIdResponse = bulk;

    {
        type ImportTenantsStream = bulk::Answers<v1::ImportTenantsResponse>;

        async fn import_tenants(
            &self,
            request: Request<Streaming<v1::ImportTenantsRequest>>,
        ) -> Result<Response<Self::ImportTenantsStream>, Status> {
            respond(bulk::import_tenants(self, request)).await
        }

        type ExportAuditEventsStream = bulk::Answers<v1::ExportAuditEventsResponse>;

        async fn export_audit_events(
            &self,
            request: Request<v1::ExportAuditEventsRequest>,
        ) -> Result<Response<Self::ExportAuditEventsStream>, Status> {
            Box::pin(respond(audit::export_audit_events(self, request))).await
        }

        type WatchChangesStream = bulk::Answers<v1::WatchChangesResponse>;

        async fn watch_changes(
            &self,
            request: Request<v1::WatchChangesRequest>,
        ) -> Result<Response<Self::WatchChangesStream>, Status> {
            Box::pin(respond(changes::watch_changes(self, request))).await
        }

        type ExportTenantStream = bulk::Answers<v1::ExportTenantResponse>;

        async fn export_tenant(
            &self,
            request: Request<v1::ExportTenantRequest>,
        ) -> Result<Response<Self::ExportTenantStream>, Status> {
            Box::pin(respond(bulk::export_tenant(self, request))).await
        }
    }
}
