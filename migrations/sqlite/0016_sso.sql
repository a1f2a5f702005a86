-- Keys of members that were made in a session which the tenant's own identity provider had vouched for: they end with the
-- connection. For SQLite: the same as ../postgres/0016_sso.sql.

alter table api_key add column sso_connection_id blob;
