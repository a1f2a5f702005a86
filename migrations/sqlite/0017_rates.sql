-- Counted calls are cleared away when they count nothing any more.

create index rpc_rate_updated on rpc_rate (updated_at);
