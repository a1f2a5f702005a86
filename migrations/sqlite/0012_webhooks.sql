-- Webhooks with what is sent to them. For SQLite: the tables of ../postgres/0012_webhooks.sql.

create table webhook (
  tenant_id blob not null references tenant (tenant_id),
  webhook_id blob not null,
  url text not null,
  description text not null,
  event_types text not null, -- json array; all when empty
  status integer not null, -- 1 enabled, 2 disabled, 3 dead; as in webhook.proto
  sealed blob not null, -- the secret, under the master key
  sealed_old blob, -- the one before the last rotation
  old_until integer,
  failures integer not null, -- in a row
  failing_since integer,
  problem text not null,
  rests_until integer, -- nothing new is tried before
  version integer not null,
  created_at integer not null,
  updated_at integer not null,
  primary key (tenant_id, webhook_id)
) strict;
create index webhook_id on webhook (webhook_id);

create table webhook_delivery (
  tenant_id blob not null,
  delivery_id blob not null,
  webhook_id blob not null,
  event_type text not null,
  body text not null, -- json, as it is sent
  status integer not null, -- 1 waiting, 2 delivered, 3 given up; as in webhook.proto
  attempts integer not null,
  response_code integer not null,
  problem text not null,
  created_at integer not null,
  attempted_at integer,
  next_attempt_at integer not null,
  ended_at integer,
  primary key (tenant_id, delivery_id)
) strict;
create index webhook_delivery_of on webhook_delivery (tenant_id, webhook_id, delivery_id);
create index webhook_delivery_waiting on webhook_delivery (tenant_id, webhook_id, next_attempt_at) where status = 1;
create index webhook_delivery_ended on webhook_delivery (tenant_id, webhook_id, ended_at) where status <> 1;
