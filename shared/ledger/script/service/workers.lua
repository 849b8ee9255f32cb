-- The workers: heartbeats and their jobs.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change int record_key (records)

local function leave_queues(owner)
  local queues = redis.call('HGET', KEY.worker .. owner, 'queues')
  for _, queue in ipairs(cjson.decode(queues or '[]')) do change('ZREM', KEY.consumers .. queue, owner) end
end

-- beat: {owner, about, queues, kinds?, jobs, clock_ms?, lease_ms, keep_ms}. The heartbeat of a worker: its description
-- (JSON text), the queues that it consumes, the kinds that it runs, its jobs, its time. It counts as a consumer for
-- `lease_ms`, and is listed for `keep_ms`.
function T.beat(a)
  local key, until_ms = KEY.worker .. a.owner, NOW + a.lease_ms
  leave_queues(a.owner)
  change('HSET', key, 'about', a.about, 'queues', cjson.encode(a.queues), 'jobs', cjson.encode(a.jobs),
    'kinds', type(a.kinds) == 'table' and cjson.encode(a.kinds) or '', 'seen_at', int(NOW), 'until', int(until_ms),
    'ahead_ms', a.clock_ms and int(a.clock_ms - NOW) or '') -- a worker of an earlier version does not tell its time
  change('PEXPIRE', key, a.keep_ms)
  change('ZREMRANGEBYSCORE', KEY.workers, '-inf', NOW - a.keep_ms)
  change('ZADD', KEY.workers, NOW, a.owner)
  for _, queue in ipairs(a.queues) do
    change('ZREMRANGEBYSCORE', KEY.consumers .. queue, '-inf', NOW)
    change('ZADD', KEY.consumers .. queue, until_ms, a.owner)
  end
  return 'ok'
end

-- leave: {owner}. A worker has ended.
function T.leave(a)
  leave_queues(a.owner)
  change('ZREM', KEY.workers, a.owner)
  change('DEL', KEY.worker .. a.owner)
  return 'ok'
end

local function active_job(id, owner)
  local state, by, kind, job_id, step, attempts =
    unpack(redis.call('HMGET', record_key(id), 'state', 'owner', 'kind', 'job_id', 'step', 'attempts'))
  if state ~= 'running' or by ~= owner then return {} end
  local list = cjson.decode(attempts)
  return { id, kind or '', job_id or '', step or '', int(list[#list].started_at_ms) }
end

-- workers: {}. Replies, one per worker: {owner, about, queues, kinds, seen_at, is_lost, {id, kind, job_id, step,
-- started_at, ...}, ahead_ms or ''}; the last one is how far its clock is ahead.
function T.workers()
  local replies = {}
  for _, owner in ipairs(redis.call('ZRANGE', KEY.workers, 0, -1)) do
    local about, queues, kinds, jobs, seen_at, until_ms, ahead_ms =
      unpack(redis.call('HMGET', KEY.worker .. owner,
        'about', 'queues', 'kinds', 'jobs', 'seen_at', 'until', 'ahead_ms'))
    if about then
      local active = {}
      for _, id in ipairs(cjson.decode(jobs)) do
        local done, says = pcall(active_job, id, owner) -- a damaged record must not hide the worker
        for _, value in ipairs(done and says or {}) do active[#active + 1] = value end
      end
      local is_lost = tonumber(until_ms) < NOW and 1 or 0
      replies[#replies + 1] = { owner, about, queues, kinds or '', seen_at, is_lost, active, ahead_ms or '' }
    end
  end
  return replies
end
