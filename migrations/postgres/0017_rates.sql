-- Counted calls are cleared away when they count nothing any more. Run as tenantry_owner with search_path = tenantry.

create index rpc_rate_updated on rpc_rate (updated_at);
