-- What decides on features is read into memory beside the rest of a decision.

create policy system_read on feature_switch for select to tenantry_system using (true);
grant select (tenant_id, feature, source, enabled, expires_at) on feature_switch to tenantry_system;
