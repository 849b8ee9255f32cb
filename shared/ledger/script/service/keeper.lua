-- The rounds of the keeper: due, lost and expired jobs, and those past their retention.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals FINAL (states)
-- luacheck: read globals NOW change count field_of int is_number load remove_record set try (records)
-- luacheck: read globals emit_state (events)
-- luacheck: read globals keeps_for_rows unwritten (results)
-- luacheck: read globals has_message (messages)
-- luacheck: read globals POSTPONED_MS file_owners ids_with_steps is_referred postpone (files)
-- luacheck: read globals first_known list_of note_published published_key (queues)
-- luacheck: read globals admit_all enter let_go look_at_places look_at_turns publish publish_first set_aside (holds)
-- luacheck: read globals expire (endings)
-- luacheck: read globals lost was_away (claims)
-- luacheck: read globals forget (forgetting)

local ROW_POSTPONED_MS = 60000 -- how often it is looked whether the row of a job past its retention is written
local FORGOTTEN_STEP = 0.1 -- of the effort for a job: of large workflows, `forget` leaves the steps for later
local REMEMBERED = 0.05 -- likewise, for an id in `gone`

-- How many jobs this call may still change. Each takes 0.1 to 0.2 ms, in which nobody else is served, so a call ends
-- when it has done enough, and the next goes on with the next round.
local left

local function older(key, bound)
  return redis.call('ZRANGE', key, '-inf', bound, 'BYSCORE', 'LIMIT', 0, math.ceil(left))
end

-- Unclaimed queued jobs whose message is no longer in a list, the youngest first: each is published before those that
-- were published after it.
local function lost_messages(list, a)
  local known, passed = first_known(list)
  if not known then return {} end -- wait until the copies are consumed
  local key, bound = published_key(list), math.min(NOW - a.grace_ms, known - 1)
  local ids = {}
  for _, id in ipairs(redis.call('ZRANGE', key, bound, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, math.ceil(left))) do
    if not passed[id] then ids[#ids + 1] = id end
  end
  return ids
end

-- Celery deletes a chord once it has published its body. Let it count the parts again: celery.backends.redis.
local function rearm_chord(part, size)
  local readable, message = pcall(cjson.decode, part.message)
  local group = readable and message.headers.group
  if type(group) ~= 'string' then return end
  local key = KEY.chord .. group
  change('DEL', key .. '.c', key .. '.j', key .. '.t', key .. '.d')
  change('SET', key .. '.s', size, 'PX', part.retention_ms)
end

-- Publish a lost message again. A step that Celery should have published after the previous ones has no message yet:
-- then publish theirs again; their claims reply 'succeeded', and Celery continues from there.
local function republish(record)
  if has_message(record) then
    publish_first(record, redis.call('ZSCORE', published_key(list_of(record)), record.id))
    return
  end
  note_published(record)
  local before = {}
  for _, id in ipairs(cjson.decode(record.after or '[]')) do
    local part = load(id)
    if part and part.message then before[#before + 1] = part end -- a reused step is not part of a chord
  end
  if before[1] then rearm_chord(before[1], #before) end
  for _, part in ipairs(before) do
    if part.outbox == '1' then
      change('ZADD', KEY.outbox, NOW, part.id)
    else
      change('RPUSH', list_of(part), part.message)
    end
  end
end

-- Call `act` for each id, in a separate transition each, so that one failure sets only its job aside. `act` returns
-- what it did, or the ids that it deleted; `note` is called with that. What it did not change costs nothing of `left`,
-- as it is found again by the next call.
local function each(ids, act, note)
  for _, id in ipairs(ids) do
    local done, what = try(act, id)
    left = left - admit_all() -- at once: a job that gets a place may be in the list of a later round
    if not done then what = try(set_aside, id, what) and 'set_aside' or nil end
    if what then left = left - 1 end
    if type(what) == 'table' then
      for _, gone in ipairs(what) do note('forgotten', gone) end
    elseif what then
      note(what, id)
    end
  end
end

local function publish_due(id)
  local record = load(id)
  change('ZREM', KEY.due, id)
  if not record or record.state ~= 'scheduled' and record.state ~= 'retrying' then return end
  enter(record, 'queued')
  set(record, { due_at = false })
  if has_message(record) then publish(record) end
  emit_state(record)
  return 'published'
end

-- The first ids of a list, for which there is still time in this call. A step of a workflow is `effort` of a job.
local function few(ids, effort)
  local taken = {}
  for n, id in ipairs(ids) do
    if left <= n - 1 then break end
    taken[n] = id
    left = left - effort * (tonumber(field_of(id, 'total') or '0') or 0)
  end
  return taken
end

local function expire_unstarted(id)
  local record = load(id)
  change('ZREM', KEY.expiring, id)
  if not record or record.started_at or FINAL[record.state] then return end
  expire(record)
  return 'expired'
end

local function take_back(id)
  local record = load(id)
  if record and record.state == 'running' then return lost(record) end
  change('ZREM', KEY.claims, id)
end

local function forget_ended(id)
  local record = load(id)
  if not record then
    change('ZREM', KEY.ended, id)
    return
  end
  if record.job_id then -- left by `forget`
    change('ZREM', KEY.ended, id)
    remove_record(id)
    return {}
  end
  local rows = unwritten(ids_with_steps(record))
  if is_referred(file_owners(record)) then
    postpone(record, POSTPONED_MS)
  elseif rows > 0 and keeps_for_rows() then
    postpone(record, ROW_POSTPONED_MS)
  else
    if rows > 0 then count('kept|row_dropped', rows) end
    return forget(record)
  end
end

local function forget_upload(id)
  if is_referred({ id }) then
    change('ZADD', KEY.uploads, NOW + POSTPONED_MS, id)
    return
  end
  change('ZREM', KEY.uploads, id)
  return 'forgotten'
end

local function forget_gone(a)
  local ids = redis.call('ZRANGE', KEY.gone, '-inf', NOW - a.remember_ms, 'BYSCORE', 'LIMIT', 0,
    math.max(0, math.floor(left / REMEMBERED)))
  for _, id in ipairs(ids) do change('ZREM', KEY.gone, id) end
  left = left - REMEMBERED * #ids
end

-- The rounds, in order. The keeper gets the name of a round that fails.
local ROUNDS = {
  { 'due', function(_, note) each(older(KEY.due, NOW), publish_due, note) end },
  { 'expired', function(_, note) each(few(older(KEY.expiring, NOW), 1), expire_unstarted, note) end },
  { 'lapsed claims', function(_, note)
    if redis.call('EXISTS', KEY.amnesty) == 0 then each(older(KEY.claims, NOW), take_back, note) end
  end },
  { 'lost messages', function(a, note)
    for _, list in ipairs(redis.call('SMEMBERS', KEY.lists)) do
      if left <= 0 then break end
      each(lost_messages(list, a), function(id)
        local record = load(id)
        if not record or record.state ~= 'queued' or list_of(record) ~= list then
          change('ZREM', published_key(list), id)
        elseif tonumber(record.published_at) <= NOW - a.grace_ms then -- the score can be lower: see put_first
          republish(record)
          return 'republished'
        end
      end, note)
    end
  end },
  { 'holds', function(a, note)
    for _, queue in ipairs(redis.call('SMEMBERS', KEY.held_queues)) do
      if left > 0 then left = left - let_go(queue, math.ceil(left), note) end
    end
    for _, key in ipairs(redis.call('SRANDMEMBER', KEY.limited_keys, a.limit)) do try(look_at_places, key) end
    left = left - admit_all()
  end },
  { 'callbacks', function(_, note)
    each(older(KEY.callbacks, NOW), function(id)
      if load(id) then return 'callback' end
      change('ZREM', KEY.callbacks, id)
    end, note)
  end },
  { 'outbox', function(a, note)
    each(older(KEY.outbox, NOW - a.outbox_grace_ms), function() return 'unpublished' end, note)
  end },
  { 'forgotten', function(a, note)
    each(few(older(KEY.ended, NOW), FORGOTTEN_STEP), forget_ended, note)
    forget_gone(a)
  end },
  { 'uploads', function(_, note) each(older(KEY.uploads, NOW), forget_upload, note) end },
}

-- Become the keeper for a while. If there was none for long, the ledger was unavailable and no claim could be renewed;
-- then running claim owners get one more lease.
local function take_office(a)
  local holder = redis.call('GET', KEY.keeper)
  if holder and holder ~= a.owner then return false end
  change('SET', KEY.keeper, a.owner, 'PX', a.lock_ms)
  local silent_ms = NOW - (redis.call('GET', KEY.tended_at) or NOW)
  if was_away(silent_ms, a.lease_ms) then change('SET', KEY.amnesty, 1, 'PX', a.lease_ms) end
  change('SET', KEY.tended_at, int(NOW))
  return true
end

-- tend: {owner, lock_ms, lease_ms, limit, round, grace_ms, outbox_grace_ms, remember_ms}: the rounds of the keeper,
-- from the given one on, until about `limit` jobs are changed. Replies {} when another worker is the keeper, else
-- {'tended', round, action, id, action, id, ...}: the round to go on with, or '0' if nothing is left to do now. Actions
-- are published (due), expired, republished (owner or message lost), quarantined, cancelled, unpublished, forgotten,
-- callback (to be submitted), set_aside (it cannot be processed), failed (name of a round, and the error).
function T.tend(a)
  for _, name in ipairs({ 'lock_ms', 'lease_ms', 'limit', 'round', 'grace_ms', 'outbox_grace_ms', 'remember_ms' }) do
    if not is_number(a[name], 0) then error(name .. ' is not a number', 0) end
  end
  local done, reply = try(take_office, a)
  if not done then error(reply, 0) end
  if not reply then return {} end
  local told = { 'tended', '0' }
  local function note(action, id)
    told[#told + 1] = action
    told[#told + 1] = id
    count('kept|' .. action)
  end
  left = a.limit
  for n = a.round - 1, a.round + #ROUNDS - 2 do
    local name, act = unpack(ROUNDS[n % #ROUNDS + 1])
    local went_through, why = try(act, a, note)
    if not went_through then note('failed', name .. ': ' .. why) end
    if left <= 0 then
      told[2] = int((n + 1) % #ROUNDS + 1)
      break
    end
  end
  return told
end

-- turns: {limit}. Publish the jobs of rate keys whose turn has come, for the keeper between its rounds. Replies
-- {milliseconds until the next turn or -1, id...}: messages that the caller publishes, as they are in the outbox.
function T.turns(a)
  local next_at = look_at_turns(a.limit)
  local done, unpublished = try(function() -- if the caller does not publish them, `tend` will
    local ids = redis.call('ZRANGE', KEY.outbox, 0, 1, 'BYSCORE', 'LIMIT', 0, a.limit)
    for _, id in ipairs(ids) do change('ZADD', KEY.outbox, NOW, id) end
    return ids
  end)
  return { next_at and int(math.max(0, tonumber(next_at) - NOW)) or '-1', unpack(done and unpublished or {}) }
end
