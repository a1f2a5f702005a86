-- Mail: what the outbox says of a message's way, and messages to people that are of no tenant. Run as tenantry_owner with
-- search_path = tenantry.

alter table outbox
  add column sealed   bytea,                              -- the token of a link, under the master key; gone once sent
  add column status   bigint not null default 1,          -- 1 waiting, 2 sent, 3 given up
  add column ended_at timestamptz;
create index outbox_waiting on outbox (message_id) where status = 1;
create index outbox_message on outbox (message_id);

-- What is sent to a person by the platform: proofs of an address, resets. As outbox.
create table personal_outbox (
  user_id    uuid        not null,
  message_id uuid        not null,
  template   text        not null,
  recipient  text        not null,
  payload    text        not null,                        -- json
  sealed     bytea,
  status     bigint      not null,
  created_at timestamptz not null,
  ended_at   timestamptz,
  primary key (user_id, message_id)
);
create index personal_outbox_waiting on personal_outbox (message_id) where status = 1;
create index personal_outbox_message on personal_outbox (message_id);

alter table personal_outbox enable row level security;
alter table personal_outbox force row level security;
create policy user_only on personal_outbox for all to tenantry_app
  using      (user_id = nullif(current_setting('tenantry.user', true), '')::uuid)
  with check (user_id = nullif(current_setting('tenantry.user', true), '')::uuid);
create policy system_read on personal_outbox for select to tenantry_system using (true);
grant select, insert, update, delete on personal_outbox to tenantry_app;
grant select on personal_outbox to tenantry_system;

create policy system_read on outbox for select to tenantry_system using (true);
grant update on outbox to tenantry_app;
grant select on outbox to tenantry_system;
