-- Keys of members that were made in a session which the tenant's own identity provider had vouched for: they end with the
-- connection. Run as tenantry_owner with search_path = tenantry.

alter table api_key add column sso_connection_id uuid;
