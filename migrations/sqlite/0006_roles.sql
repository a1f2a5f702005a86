-- Several roles a member, a tenant's own roles, last activity.

-- What a member is besides `membership.role`, which is the top role whenever the member has it: so the last-owner rules
-- count one column.
create table membership_role (
  tenant_id blob not null,
  membership_id blob not null,
  role text not null,
  primary key (tenant_id, membership_id, role),
  foreign key (tenant_id, membership_id) references membership (tenant_id, membership_id)
) strict;
create index membership_role_role on membership_role (tenant_id, role);
create index membership_in_role on membership (tenant_id, role) where status <> 3;

alter table membership add column last_active_at integer; -- to the minute, written some time later

-- Roles that a tenant has made for itself, besides those of the catalogue.
create table tenant_role (
  tenant_id blob not null references tenant (tenant_id),
  name text not null,
  role_id blob not null, -- new when a name is used again
  rank integer not null,
  permissions text not null, -- json array, each by its name
  description text not null,
  version integer not null,
  created_at integer not null,
  updated_at integer not null,
  primary key (tenant_id, name)
) strict;

-- Rises with each change of the tenant's own roles: read with the tenant, it says whether roles in memory are still right.
alter table tenant add column roles_version integer not null default 0;
