-- Several roles a member, a tenant's own roles, last activity. Run as tenantry_owner with search_path = tenantry.

-- What a member is besides `membership.role`, which is the top role whenever the member has it: so the last-owner rules
-- count one column.
create table membership_role (
  tenant_id     uuid not null,
  membership_id uuid not null,
  role          text not null collate "C",
  primary key (tenant_id, membership_id, role),
  foreign key (tenant_id, membership_id) references membership (tenant_id, membership_id)
);
create index membership_role_role on membership_role (tenant_id, role);
create index membership_in_role on membership (tenant_id, role) where status <> 3;

alter table membership add column last_active_at timestamptz;   -- to the minute, written some time later

-- Roles that a tenant has made for itself, besides those of the catalogue.
create table tenant_role (
  tenant_id   uuid        not null references tenant (tenant_id),
  name        text        not null collate "C",
  role_id     uuid        not null,                    -- new when a name is used again
  rank        bigint      not null,
  permissions text        not null,                    -- json array, each by its name
  description text        not null,
  version     bigint      not null,
  created_at  timestamptz not null,
  updated_at  timestamptz not null,
  primary key (tenant_id, name)
);

-- Rises with each change of the tenant's own roles: read with the tenant, it says whether roles in memory are still right.
alter table tenant add column roles_version bigint not null default 0;

-- ---- locks ------------------------------------------------------------------------------------------------------

alter table membership_role enable row level security;
alter table membership_role force row level security;
create policy tenant_only on membership_role for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on membership_role for select to tenantry_system using (true);
grant select, insert, update, delete on membership_role to tenantry_app;
grant select on membership_role to tenantry_system;

alter table tenant_role enable row level security;
alter table tenant_role force row level security;
create policy tenant_only on tenant_role for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on tenant_role for select to tenantry_system using (true);
grant select, insert, update, delete on tenant_role to tenantry_app;
grant select on tenant_role to tenantry_system;
