-- The keeper's round: what is due, lost, expired, or past its retention.

-- luacheck: read globals FINAL NOW P int load set (records)
-- luacheck: read globals count emit_state (events)
-- luacheck: read globals POSTPONED_MS is_postponed is_referred (files)
-- luacheck: read globals enter id_in list_of note_published publish published_key tend_holds (queues)
-- luacheck: read globals expire (endings)
-- luacheck: read globals lost (claims)
-- luacheck: read globals forget (forgetting)

local STEPS_A_ROUND = 1000 -- of the workflows that expire or are forgotten: 0.2 ms each, and all others wait meanwhile

local function older(key, bound, limit)
  return redis.call('ZRANGE', key, '-inf', bound, 'BYSCORE', 'LIMIT', 0, limit)
end

-- Queued jobs whose message is in no list any more and that no worker has claimed. A list is first in, first
-- out: whatever was published before the message at its tail has been taken off it.
local function lost_messages(list, a)
  local bound = NOW - a.grace_ms
  local tail = redis.call('LINDEX', list, -1)
  if tail then
    local id = id_in(tail)
    local published = id and redis.call('ZSCORE', published_key(list), id)
    if not published then return {} end -- not one of ours, or a copy: wait until it is taken
    bound = math.min(bound, published - 1)
  end
  return older(published_key(list), bound, a.limit)
end

-- Celery forgets a chord once it has published its body. Let it count the parts again: celery.backends.redis.
local function rearm_chord(part, size)
  local readable, message = pcall(cjson.decode, part.message)
  local group = readable and message.headers.group
  if type(group) ~= 'string' then return end
  local key = 'celery-taskset-meta-' .. group
  redis.call('DEL', key .. '.c', key .. '.j', key .. '.t', key .. '.d')
  redis.call('SET', key .. '.s', size, 'PX', part.retention_ms)
end

-- Publish again what was lost on its way. A step that Celery should have published after its predecessors has
-- no message yet: then theirs go out again; a claim answers 'succeeded' and Celery goes on from there.
local function republish(record)
  if record.message then
    publish(record)
    return
  end
  note_published(record)
  local before = {}
  for _, id in ipairs(cjson.decode(record.after or '[]')) do
    local part = load(id)
    if part and part.message then before[#before + 1] = part end -- a reused one is not part of a chord
  end
  if before[1] then rearm_chord(before[1], #before) end
  for _, part in ipairs(before) do
    if part.outbox == '1' then
      redis.call('ZADD', P .. 'outbox', NOW, part.id)
    else
      redis.call('LPUSH', list_of(part), part.message)
    end
  end
end

-- tend: {owner, lock_ms, lease_ms, limit, grace_ms, outbox_grace_ms, remember_ms}: one round of the keeper.
-- Replies {} when another worker is the keeper, else {'tended', action, id, action, id, ...}; actions are
-- published (due), expired, republished (owner or message lost), quarantined, cancelled, unpublished, forgotten,
-- callback (its end is to be told).
function T.tend(a)
  local holder = redis.call('GET', P .. 'keeper')
  if holder and holder ~= a.owner then return {} end
  redis.call('SET', P .. 'keeper', a.owner, 'PX', a.lock_ms)
  -- Nobody was the keeper for longer than a lease: the ledger itself was away, and nobody could renew either. Owners
  -- that live get one lease to show it.
  if NOW - tonumber(redis.call('GET', P .. 'tended_at') or NOW) > a.lease_ms then
    redis.call('SET', P .. 'amnesty', 1, 'PX', a.lease_ms)
  end
  redis.call('SET', P .. 'tended_at', int(NOW))
  local done = { 'tended' }
  local function note(action, id)
    done[#done + 1] = action
    done[#done + 1] = id
    count('kept|' .. action)
  end
  for _, id in ipairs(older(P .. 'due', NOW, a.limit)) do
    local record = load(id)
    redis.call('ZREM', P .. 'due', id)
    if record and (record.state == 'scheduled' or record.state == 'retrying') then
      enter(record, 'queued')
      set(record, { due_at = false })
      if record.message then publish(record) end
      emit_state(record)
      note('published', id)
    end
  end
  local steps_left = STEPS_A_ROUND
  for _, id in ipairs(older(P .. 'expiring', NOW, a.limit)) do
    if steps_left <= 0 then break end
    local record = load(id)
    steps_left = steps_left - tonumber(record and record.total or '0')
    redis.call('ZREM', P .. 'expiring', id)
    if record and not record.started_at and not FINAL[record.state] then
      expire(record)
      note('expired', id)
    end
  end
  local lapsed = redis.call('EXISTS', P .. 'amnesty') == 1 and {} or older(P .. 'claims', NOW, a.limit)
  for _, id in ipairs(lapsed) do
    local record = load(id)
    if record and record.state == 'running' then note(lost(record), id) else redis.call('ZREM', P .. 'claims', id) end
  end
  for _, list in ipairs(redis.call('SMEMBERS', P .. 'lists')) do
    for _, id in ipairs(lost_messages(list, a)) do
      local record = load(id)
      if record and record.state == 'queued' and list_of(record) == list then
        if tonumber(record.published_at) <= NOW - a.grace_ms then -- a score can be older: see put_first
          republish(record)
          note('republished', id)
        end
      else
        redis.call('ZREM', published_key(list), id)
      end
    end
  end
  tend_holds(a.limit, note)
  for _, id in ipairs(older(P .. 'callbacks', NOW, a.limit)) do note('callback', id) end
  for _, id in ipairs(older(P .. 'outbox', NOW - a.outbox_grace_ms, a.limit)) do note('unpublished', id) end
  steps_left = STEPS_A_ROUND
  for _, id in ipairs(older(P .. 'ended', NOW, a.limit)) do
    if steps_left <= 0 then break end
    local record = load(id)
    steps_left = steps_left - tonumber(record and record.total or '0')
    if not record then
      redis.call('ZREM', P .. 'ended', id)
    elseif not is_postponed(record) then
      for _, gone in ipairs(forget(record)) do note('forgotten', gone) end
    end
  end
  for _, id in ipairs(older(P .. 'uploads', NOW, a.limit)) do
    if is_referred({ id }) then
      redis.call('ZADD', P .. 'uploads', NOW + POSTPONED_MS, id)
    else
      redis.call('ZREM', P .. 'uploads', id)
      note('forgotten', id)
    end
  end
  redis.call('ZREMRANGEBYSCORE', P .. 'gone', '-inf', NOW - a.remember_ms)
  return done
end
