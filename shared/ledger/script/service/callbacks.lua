-- Callbacks: the set `callbacks` has the ended jobs whose callback is not submitted yet.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals change (records)
-- luacheck: read globals write (submission)

-- callback: {id, job}. Submit the callback `job` of the job `id`, only once even if called repeatedly.
-- Replies 'accepted' | 'known'.
function T.callback(a)
  if not redis.call('ZSCORE', KEY.callbacks, a.id) then return 'known' end
  change('ZREM', KEY.callbacks, a.id)
  write(a.job)
  return 'accepted'
end
