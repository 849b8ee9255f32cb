-- API keys: one hash each, and a list of all in the order of tenant and time. A change is published with the key's id,
-- so that every gateway forgets what it knows of the key. Fields of the hash:
--
--   id, digest (SHA-256 of the key's text), tenant, name, scopes, restrictions, created_by, created_at, expires_at
--   former_digest, former_until   the secret before a roll, and until when it is valid
--   last_used_at                  written at most once a minute
--   revoked_at

-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change int (records)

local function key_hash(id) return KEY.access_key .. id end

local function write_fields(id, fields)
  local values = {}
  for name, value in pairs(fields) do
    values[#values + 1], values[#values + 2] = name, value
  end
  change('HSET', key_hash(id), unpack(values))
end

-- The fields as a flat array, as they will be after the changes `fields`; `first` stands before them, if there is one.
local function flat_with(id, fields, first)
  local flat = { first }
  local before = redis.call('HGETALL', key_hash(id))
  for i = 1, #before, 2 do
    if not fields[before[i]] then flat[#flat + 1], flat[#flat + 2] = before[i], before[i + 1] end
  end
  for name, value in pairs(fields) do
    flat[#flat + 1], flat[#flat + 2] = name, value
  end
  return flat
end

-- access: {id}. Replies {now, number of all keys, fields of this one...}.
function T.access(a)
  return { int(NOW), int(redis.call('ZCARD', KEY.access_keys)), unpack(redis.call('HGETALL', key_hash(a.id))) }
end

-- keys: {tenant, limit, before?}: of one tenant, the newest first, behind the place `before`. Replies {fields...}.
function T.keys(a)
  local found, first, last = {}, a.tenant .. '/', a.tenant .. '0' -- the sign after '/'
  local top = a.before and first .. a.before or last
  for _, member in ipairs(redis.call('ZRANGE', KEY.access_keys, '(' .. top, '[' .. first, 'BYLEX', 'REV', 'LIMIT', 0,
    a.limit)) do
    found[#found + 1] = redis.call('HGETALL', key_hash(string.match(member, '[^/]+$')))
  end
  return found
end

-- key_put: {id, digest, tenant, name, scopes, restrictions, created_by, expires_in_ms, most}. Replies {'exists'} |
-- {'full'} | {'ok', fields...}.
function T.key_put(a)
  if redis.call('EXISTS', key_hash(a.id)) == 1 then return { 'exists' } end
  if redis.call('ZCARD', KEY.access_keys) >= a.most then return { 'full' } end
  local fields = { id = a.id, digest = a.digest, tenant = a.tenant, name = a.name, scopes = a.scopes,
    restrictions = a.restrictions, created_by = a.created_by, created_at = int(NOW),
    expires_at = int(NOW + a.expires_in_ms) }
  write_fields(a.id, fields)
  change('ZADD', KEY.access_keys, 0, a.tenant .. '/' .. string.format('%015.0f', NOW) .. '/' .. a.id)
  change('PUBLISH', KEY.access, a.id)
  return flat_with(a.id, fields, 'ok')
end

-- key_roll: {id, digest, overlap_ms, expires_in_ms?} of a key that exists. Replies {'revoked'} | {'expired'} (and no
-- new time was given) | {'ok', fields...}.
function T.key_roll(a)
  local present, expires_at, revoked_at = unpack(redis.call('HMGET', key_hash(a.id), 'digest', 'expires_at',
    'revoked_at'))
  if revoked_at then return { 'revoked' } end
  if NOW >= tonumber(expires_at) and not a.expires_in_ms then return { 'expired' } end
  local fields = { digest = a.digest, former_digest = present, former_until = int(NOW + a.overlap_ms) }
  if a.expires_in_ms then fields.expires_at = int(NOW + a.expires_in_ms) end
  write_fields(a.id, fields)
  change('PUBLISH', KEY.access, a.id)
  return flat_with(a.id, fields, 'ok')
end

-- key_revoke: {id} of a key that exists. Replies its fields.
function T.key_revoke(a)
  local fields = {}
  if redis.call('HEXISTS', key_hash(a.id), 'revoked_at') == 0 then
    fields.revoked_at = int(NOW)
    write_fields(a.id, fields)
  end
  change('PUBLISH', KEY.access, a.id)
  return flat_with(a.id, fields)
end

-- key_used: {id, every_ms}.
function T.key_used(a)
  local used_at = redis.call('HGET', key_hash(a.id), 'last_used_at')
  if used_at and NOW - tonumber(used_at) < a.every_ms then return end
  if redis.call('EXISTS', key_hash(a.id)) == 1 then change('HSET', key_hash(a.id), 'last_used_at', int(NOW)) end
end
