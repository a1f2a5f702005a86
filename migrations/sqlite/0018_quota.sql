-- The quota engine: accounts with leases, reservations and slots, events with their details, roll-ups, notices.

create table new_quota_account (
  tenant_id blob not null references tenant (tenant_id),
  account_id blob not null,
  metric text not null,
  scope integer not null, -- 0 key, 1 member, 2 tenant: the order of locks
  scope_id blob not null,
  period_start integer not null,
  period_end integer, -- null in rows of before: a calendar month, UTC
  limit_value integer not null default 0, -- up to where amounts are admitted; 2^62 is unlimited
  limit_until integer, -- when the limit is to be looked at anew
  shown_limit integer, -- without grace; null is unlimited
  limit_source integer not null default 1, -- 1 plan, 2 override
  revision integer not null default 1, -- rises with each change of the limit
  committed integer not null,
  reserved integer not null default 0 check (reserved >= 0),
  leased integer not null default 0 check (leased >= 0),
  forfeited integer not null default 0 check (forfeited >= 0),
  recall_need integer not null default 0 check (recall_need >= 0),
  next_epoch integer not null default 1,
  sequence integer, -- of the last set of a gauge
  thresholds text not null default '[]', -- json: percents that somebody is told of
  told_percent integer not null default 0, -- the highest of them that was reached
  archived integer not null default 0, -- charges of events that are no longer kept
  primary key (tenant_id, account_id)
) strict;
insert into new_quota_account (tenant_id, account_id, metric, scope, scope_id, period_start, committed)
select tenant_id, randomblob(16), metric, 2, zeroblob(16), period_start, committed from quota_account;
drop table quota_account;
alter table new_quota_account rename to quota_account;
create unique index quota_account_period on quota_account (tenant_id, metric, scope, scope_id, period_start);
create index quota_account_top on quota_account (metric, period_end) where scope = 2;   -- who uses most

-- What a commit lane holds of an account. Closed: epoch 0, granted 0, settled 0.
create table quota_lease (
  tenant_id blob not null,
  account_id blob not null,
  writer_id blob not null,
  class integer not null, -- 0 durable, 1 leased
  epoch integer not null,
  granted integer not null,
  settled integer not null,
  forfeited integer not null default 0 check (forfeited >= 0),
  check (0 <= settled and settled <= granted),
  primary key (tenant_id, account_id, writer_id, class)
) strict;
create index quota_lease_writer on quota_lease (writer_id);

-- A commit lane of a process. Its batch number tells whether a commit of unknown outcome happened.
create table quota_writer (
  writer_id blob primary key,
  process_id blob not null,
  batch_no integer not null,
  beat integer not null
) strict;

create table new_usage_event (
  tenant_id blob not null,
  key text not null, -- idempotency key, or one of the server's
  payload_hash blob not null,
  verdict integer not null, -- 1 admitted, 2 refused
  charges text not null,
  answer text, -- of the version before
  decided_at integer not null,
  kind integer not null default 1, -- 1 consume, 2 reserve, 3 record, 4 refund, 5 commit, 6 set
  ack integer not null default 0, -- as in types.proto
  event_at integer, -- null in rows of before: decided_at
  member_id blob, -- the person
  api_key_id blob,
  endpoint text not null default '',
  method text not null default '',
  status integer not null default 0,
  latency_us integer not null default 0,
  attributes text not null default '', -- json object
  subject text not null default '', -- key of the event refunded, or id of the reservation
  primary key (tenant_id, key)
) strict;
insert into new_usage_event (tenant_id, key, payload_hash, verdict, charges, answer, decided_at)
select tenant_id, key, payload_hash, verdict, charges, answer, decided_at from usage_event;
drop table usage_event;
alter table new_usage_event rename to usage_event;
create index usage_event_at on usage_event (tenant_id, coalesce(event_at, decided_at), key);

-- Reservations and slots: units set aside until they are committed, released, or expire. The state decides, not the clock.
create table quota_hold (
  tenant_id blob not null,
  hold_id blob not null,
  kind integer not null, -- 1 reservation, 2 slot
  key text not null, -- of the event that opened it
  state integer not null, -- 1 held, 2 committed, 3 released, 4 expired
  charges text not null, -- json, as in usage_event
  actual text not null default '', -- json: what was committed
  holder text not null default '',
  opened_by blob not null, -- caller: user or key
  expires_at integer not null,
  created_at integer not null,
  ended_at integer,
  primary key (tenant_id, hold_id)
) strict;
create index quota_hold_due on quota_hold (expires_at) where state = 1;

-- Amounts by quarter of an hour and by everything that usage is asked by; sharded by lane, so that no row is hot.
create table usage_rollup (
  tenant_id blob not null,
  bucket integer not null,
  metric text not null,
  member_id blob not null, -- nil when there is none
  api_key_id blob not null,
  endpoint text not null,
  method text not null,
  status integer not null,
  shard integer not null,
  events integer not null,
  amount integer not null,
  primary key (tenant_id, bucket, metric, member_id, api_key_id, endpoint, method, status, shard)
) strict, without rowid;

-- Percents of a metric's limit of which the tenant wants to be told.
create table quota_threshold (
  tenant_id blob not null,
  metric text not null,
  percents text not null, -- json array
  primary key (tenant_id, metric)
) strict;

-- A threshold that was reached, once a period; the job `quota_notice` tells people.
create table quota_notice (
  tenant_id blob not null,
  notice_id blob not null,
  account_id blob not null,
  metric text not null,
  percent integer not null,
  used integer not null,
  limit_value integer not null,
  period_end integer not null,
  at integer not null,
  told_at integer,
  primary key (tenant_id, notice_id)
) strict;

-- What retention has forgotten: events that happened, and were decided, before this may be gone.
create table usage_horizon (
  tenant_id blob primary key,
  forgotten_until integer not null -- the beginning of a quarter of an hour
) strict;
