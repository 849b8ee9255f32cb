-- All values of a scrape, in one call.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW int (records)

-- metrics: {queues, states}. Replies {counters, counters of events, jobs per state, as `queues`, as `workers`, rows}:
-- rows is {} without a result database, else {how many wait, milliseconds that the oldest has waited}.
function T.metrics(a)
  local jobs = {}
  for i, state in ipairs(a.states) do jobs[i] = redis.call('ZCARD', KEY.state .. state) end
  local counters, event_counters = redis.call('HGETALL', KEY.counters), redis.call('HGETALL', KEY.event_counters)
  local rows = {}
  if redis.call('EXISTS', KEY.rows_wanted) == 1 then
    local oldest = redis.call('ZRANGE', KEY.rows, 0, 0, 'WITHSCORES')[2]
    rows = { redis.call('ZCARD', KEY.rows), oldest and int(math.max(0, NOW - oldest)) or '0' }
  end
  return { counters, event_counters, jobs, T.queues(a), T.workers(), rows }
end
