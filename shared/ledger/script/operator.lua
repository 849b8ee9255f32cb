-- What an operator asks for: queues, workers, and the end of a finished job's record.

-- pause: {queue}. Nothing of the queue is started from now on, whichever worker asks, until it is resumed.
function T.pause(a)
  redis.call('HSETNX', P .. 'paused', a.queue, int(NOW))
  return 'ok'
end

-- resume: {queue}. What was held goes out by `let_go`, or else by the keeper.
function T.resume(a)
  redis.call('HDEL', P .. 'paused', a.queue)
  return 'ok'
end

-- let_go: {queue, limit}. Replies how many jobs were published: fewer than `limit` when none is left.
function T.let_go(a) return #let_go(a.queue, a.limit) end

-- The job of a set that has waited longest: its id and since when. One look a priority, whatever the set's size.
local function oldest_in(set_key)
  local oldest, since
  if redis.call('EXISTS', set_key) == 0 then return end
  for band = 0, 9 do
    local found = redis.call('ZRANGE', set_key, int(band * BAND), '(' .. int((band + 1) * BAND), 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    local at = found[1] and tonumber(found[2]) - band * BAND
    if at and (not since or at < since) then oldest, since = found[1], at end
  end
  return oldest, since
end

-- queues: {queues}. Replies, one a queue: {backlog, held, limited, running, consumers, paused_at, oldest_id, oldest_at, now}.
function T.queues(a)
  local replies = {}
  for i, queue in ipairs(a.queues) do
    local sizes, oldest, since = {}, '', NOW
    for n, name in ipairs({ 'backlog:', 'held:', 'limited:' }) do
      sizes[n] = redis.call('ZCARD', P .. name .. queue)
      local id, at = oldest_in(P .. name .. queue)
      if id and (oldest == '' or at < since) then oldest, since = id, at end
    end
    replies[i] = {
      sizes[1], sizes[2], sizes[3], redis.call('ZCARD', P .. 'running:' .. queue),
      redis.call('ZCOUNT', P .. 'consumers:' .. queue, NOW, '+inf'), redis.call('HGET', P .. 'paused', queue) or '',
      oldest, int(since), int(NOW),
    }
  end
  return replies
end

local function leave_queues(owner)
  local queues = redis.call('HGET', P .. 'worker:' .. owner, 'queues')
  for _, queue in ipairs(cjson.decode(queues or '[]')) do redis.call('ZREM', P .. 'consumers:' .. queue, owner) end
end

-- beat: {owner, about, queues, jobs, lease_ms, keep_ms}. A worker says that it lives: what it is (JSON text), which
-- queues it consumes and which jobs it has. It counts as a consumer for `lease_ms`, and is shown for `keep_ms`.
function T.beat(a)
  local key, until_ms = P .. 'worker:' .. a.owner, NOW + a.lease_ms
  leave_queues(a.owner)
  redis.call('HSET', key, 'about', a.about, 'queues', cjson.encode(a.queues), 'jobs', cjson.encode(a.jobs), 'seen_at', int(NOW), 'until', int(until_ms))
  redis.call('PEXPIRE', key, a.keep_ms)
  redis.call('ZREMRANGEBYSCORE', P .. 'workers', '-inf', NOW - a.keep_ms)
  redis.call('ZADD', P .. 'workers', NOW, a.owner)
  for _, queue in ipairs(a.queues) do
    redis.call('ZREMRANGEBYSCORE', P .. 'consumers:' .. queue, '-inf', NOW)
    redis.call('ZADD', P .. 'consumers:' .. queue, until_ms, a.owner)
  end
  return 'ok'
end

-- leave: {owner}. A worker has ended.
function T.leave(a)
  leave_queues(a.owner)
  redis.call('ZREM', P .. 'workers', a.owner)
  redis.call('DEL', P .. 'worker:' .. a.owner)
  return 'ok'
end

-- workers: {}. Replies, one a worker: {owner, about, queues, seen_at, is_lost, {id, kind, job_id, step, started_at, ...}}.
function T.workers()
  local replies = {}
  for _, owner in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
    local about, queues, jobs, seen_at, until_ms =
      unpack(redis.call('HMGET', P .. 'worker:' .. owner, 'about', 'queues', 'jobs', 'seen_at', 'until'))
    if about then
      local active = {}
      for _, id in ipairs(cjson.decode(jobs)) do
        local state, by, kind, job_id, step, attempts = unpack(redis.call('HMGET', record_key(id), 'state', 'owner', 'kind', 'job_id', 'step', 'attempts'))
        if state == 'running' and by == owner then
          local list = cjson.decode(attempts)
          for _, value in ipairs({ id, kind, job_id or '', step or '', int(list[#list].started_at_ms) }) do active[#active + 1] = value end
        end
      end
      replies[#replies + 1] = { owner, about, queues, seen_at, tonumber(until_ms) < NOW and 1 or 0, active }
    end
  end
  return replies
end

-- forget: {id}. Take a finished job out of the ledger now. Replies as `clean` does: 'referred' where a live job, a
-- schedule, or a later job that uses its steps again needs its files, or where its end is still to be told.
function T.forget(a)
  local record = load(a.id)
  local until_ms = record and redis.call('ZSCORE', P .. 'ended', a.id)
  if until_ms and until_ms - record.retention_ms > tonumber(record.finished_at) then return { 'referred' } end -- see keep_lineage
  return clean(a.id, { older_than_ms = 0 })
end
