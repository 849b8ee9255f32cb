-- Pausing and resuming queues, and their state.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change int (records)
-- luacheck: read globals BAND (queues)
-- luacheck: read globals let_go (holds)

-- pause: {queue}. No job of the queue starts, on any worker, until it is resumed.
function T.pause(a)
  change('HSETNX', KEY.paused, a.queue, int(NOW))
  return 'ok'
end

-- resume: {queue}. `let_go` publishes the held jobs, or the keeper.
function T.resume(a)
  change('HDEL', KEY.paused, a.queue)
  return 'ok'
end

-- let_go: {queue, limit}. Replies how many jobs were published: fewer than `limit` when none is left.
function T.let_go(a) return let_go(a.queue, a.limit, function() end) end

-- The job of a set that has waited longest: its id and since when. One query per priority, for any size of the set.
local function oldest_in(set_key)
  local oldest, since
  if redis.call('EXISTS', set_key) == 0 then return end
  for band = 0, 9 do
    local from, to = int(band * BAND), '(' .. int((band + 1) * BAND)
    local found = redis.call('ZRANGE', set_key, from, to, 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    local at = found[1] and tonumber(found[2]) - band * BAND
    if at and (not since or at < since) then oldest, since = found[1], at end
  end
  return oldest, since
end

-- queues: {queues}. Replies, one per queue: {backlog, held, limited, rated, running, consumers, paused_at,
-- oldest_id, oldest_at, now}.
function T.queues(a)
  local replies = {}
  for i, queue in ipairs(a.queues) do
    local sizes, oldest, since = {}, '', NOW
    for n, name in ipairs({ KEY.backlog, KEY.held, KEY.limited, KEY.rated }) do
      sizes[n] = redis.call('ZCARD', name .. queue)
      local id, at = oldest_in(name .. queue)
      if id and (oldest == '' or at < since) then oldest, since = id, at end
    end
    replies[i] = {
      sizes[1], sizes[2], sizes[3], sizes[4], redis.call('ZCARD', KEY.running .. queue),
      redis.call('ZCOUNT', KEY.consumers .. queue, NOW, '+inf'), redis.call('HGET', KEY.paused, queue) or '',
      oldest, int(since), int(NOW),
    }
  end
  return replies
end
