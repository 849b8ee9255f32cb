-- Schedules, stored like RedBeat's entries: one hash each, and an index scored by the next time that beat checks it, in
-- seconds; a negative score is never due. Fields of the hash:
--
--   document   the schedule as shared/schedules/terms.py writes it      definition  the same in RedBeat's format
--   revision   number of edits; a call with an older one is refused
--   cursor     slots up to this time have been processed
--   buffered   a slot whose job waits for the end of the last one
--   last_job, last_slot, skipped, skipped_slot, skipped_why, trouble          outcomes

-- luacheck: read globals KEY (keys)
-- luacheck: read globals FINAL (states)
-- luacheck: read globals NOW change field_of int record_key (records)
-- luacheck: read globals refer unrefer (files)
-- luacheck: read globals holder_of replace replaces write (submission)

local SCHEDULES = KEY.redbeat_schedule
local LIVE_LOOKED_AT = 100

local function schedule_key(id) return KEY.redbeat .. id end

local function look_at(id, at_ms)
  change('ZADD', SCHEDULES, string.format('%.3f', at_ms / 1000), schedule_key(id))
end

-- The files that the parameters of a schedule reference are kept as long as the schedule.
local function name_files(id, document)
  local before = redis.call('HGET', schedule_key(id), 'document')
  if before then unrefer({ id = 'schedule:' .. id, params = before }) end
  if document then refer({ id = 'schedule:' .. id, params = document }) end
end

-- The schedule as a flat array, and the state of its last job.
local function schedule_with_last_job(key)
  local flat = redis.call('HGETALL', key)
  local last_job = redis.call('HGET', key, 'last_job')
  return { flat, last_job and field_of(last_job, 'state') or '' }
end

-- schedule_put: {id, document, definition, restart, look_at?, revision?, most?, default?}. Without `revision` it is a
-- new one; `default` names a default schedule of the service, which is created only once. `restart`: slots count from
-- now on. Without `look_at` it is paused. Replies 'ok' | 'unknown' | 'changed' | 'full' | 'exists'.
function T.schedule_put(a)
  local key = schedule_key(a.id)
  local revision = redis.call('HGET', key, 'revision')
  if a.revision then
    if not revision then return 'unknown' end
    if revision ~= a.revision then return 'changed' end
  else
    if redis.call('ZCARD', SCHEDULES) >= a.most then return 'full' end
    if a.default then
      if redis.call('SISMEMBER', KEY.redbeat_defaults, a.default) == 1 then return 'exists' end
      change('SADD', KEY.redbeat_defaults, a.default)
    end
  end
  name_files(a.id, a.document)
  change('HSET', key, 'document', a.document, 'definition', a.definition, 'revision', int((revision or 0) + 1))
  change('HDEL', key, 'trouble')
  if a.restart then
    change('HSET', key, 'cursor', int(NOW))
    change('HDEL', key, 'buffered')
  end
  local next_look = a.look_at or -1000
  local is_buffered = not a.restart and redis.call('HEXISTS', key, 'buffered') == 1
  look_at(a.id, is_buffered and math.min(NOW, next_look) or next_look)
  return 'ok'
end

-- schedule_delete: {id}. Its jobs are kept.
function T.schedule_delete(a)
  name_files(a.id)
  change('ZREM', SCHEDULES, schedule_key(a.id))
  change('DEL', schedule_key(a.id))
  return redis.call('EXISTS', schedule_key(a.id))
end

-- schedule: {id}. Replies {} or {fields, state of its last job}.
function T.schedule(a)
  local key = schedule_key(a.id)
  return redis.call('HEXISTS', key, 'document') == 1 and schedule_with_last_job(key) or {}
end

-- schedules: {before, limit}: the newest first, with ids below `before`. Replies {{fields, state of its last job}...}.
function T.schedules(a)
  local found, keys, upper = {}, redis.call('ZRANGE', SCHEDULES, 0, -1), a.before and schedule_key(a.before)
  table.sort(keys, function(one, other) return one > other end)
  for _, key in ipairs(keys) do
    if #found == a.limit then break end
    if (not upper or key < upper) and redis.call('HEXISTS', key, 'document') == 1 then
      found[#found + 1] = schedule_with_last_job(key)
    end
  end
  return found
end

-- schedules_due: {limit}. Replies {now, when to look again or '', fields...}, times in milliseconds.
function T.schedules_due(a)
  local now_s = string.format('%.3f', NOW / 1000)
  local later = redis.call('ZRANGE', SCHEDULES, '(' .. now_s, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  local replies = { int(NOW), later[2] and int(later[2] * 1000) or '' }
  for _, key in ipairs(redis.call('ZRANGE', SCHEDULES, 0, now_s, 'BYSCORE', 'LIMIT', 0, a.limit)) do
    if redis.call('HEXISTS', key, 'document') == 1 then replies[#replies + 1] = redis.call('HGETALL', key) end
  end
  return replies
end

-- Nothing that a revoked key has arranged goes on; that a key has expired says nothing against its schedules.
local function trouble_with_key(id)
  if redis.call('HEXISTS', KEY.access_key .. id, 'revoked_at') == 0 then return nil end
  return 'The key ' .. id .. ', which made it, is revoked. Resume or edit it with another key.'
end

local function has_live_job(schedule)
  local jobs = KEY.schedule .. schedule
  for _, id in ipairs(redis.call('ZRANGE', jobs, '+', '-', 'BYLEX', 'REV', 'LIMIT', 0, LIVE_LOOKED_AT)) do
    local state = field_of(id, 'state')
    if state and not FINAL[state] then return true end
  end
  return false
end

-- schedule_tick: {id, revision, slot, next, job_id, overlap, poll_ms, missed?, trouble?, key_id?, job?}: decide on one
-- slot and apply the decision. Without `job` the reply to a tick that may run is 'free': create the job and call again.
-- Replies 'accepted' | 'replayed' (the job of this slot exists, or another beat processed it) | 'skipped' | 'buffered'
-- | 'waiting' (the buffered one, still) | 'troubled' | 'free' | 'stale' (edited, paused or deleted meanwhile).
function T.schedule_tick(a)
  local key = schedule_key(a.id)
  local revision, cursor, buffered = unpack(redis.call('HMGET', key, 'revision', 'cursor', 'buffered'))
  if revision ~= a.revision then return 'stale' end
  buffered = tonumber(buffered)
  local function done(reply)
    if a.slot > tonumber(cursor) then change('HSET', key, 'cursor', int(a.slot)) end
    look_at(a.id, buffered and math.min(a.next, NOW + a.poll_ms) or a.next)
    return reply
  end
  local function skipped(why)
    local skips = (redis.call('HGET', key, 'skipped') or 0) + 1
    change('HSET', key, 'skipped', int(skips), 'skipped_slot', int(a.slot), 'skipped_why', why)
    return done('skipped')
  end
  local function unbuffered()
    if a.slot == buffered then
      change('HDEL', key, 'buffered')
      buffered = nil
    end
  end
  if a.slot <= tonumber(cursor) and a.slot ~= buffered then return done('replayed') end
  if redis.call('EXISTS', record_key(a.job_id)) == 1 or redis.call('ZSCORE', KEY.gone, a.job_id) then
    unbuffered()
    return done('replayed')
  end
  if a.missed then return skipped('missed') end
  if a.overlap ~= 'allow' and has_live_job(a.id) then
    if a.slot == buffered then return done('waiting') end
    if a.overlap ~= 'buffer_one' or buffered then return skipped('overlap') end
    buffered = a.slot
    change('HSET', key, 'buffered', int(a.slot))
    return done('buffered')
  end
  local trouble = a.trouble or a.key_id and trouble_with_key(a.key_id)
  if trouble then
    unbuffered()
    change('HSET', key, 'trouble', trouble)
    return done('troubled')
  end
  if not a.job then return 'free' end
  unbuffered()
  local holder = a.job.unique_key and holder_of(a.job.unique_key)
  if holder and not replaces(a.job, holder) then return skipped('overlap') end
  if holder then replace(holder, a.job) end
  write(a.job)
  change('HSET', key, 'last_slot', int(a.slot))
  change('HDEL', key, 'trouble')
  return done('accepted')
end
