-- The ledger of many hosts: what quota/book.py does, step by step and number by number, in one atomic call.
--
-- KEYS[1]: members and time. KEYS[2…]: one account for each ask or seed.
-- ARGV[1]: "report" or "seed". ARGV[2]: MessagePack of a Report, or of an array of Seeds. ARGV[3]: MessagePack of the times.
-- ARGV[4]: a time of this server after which nothing is done any more; "" for none. ARGV[5]: "" for this server's clock.
-- Returns MessagePack: of a Reply, of nil for seeds, or of {late = now}.
--
-- Differences from the book: a member's holds are taken from an account when the account is next looked at, not when the member is
-- forgotten; `inc` tells one life of a name from the next. Accounts expire by themselves. What an earlier life of this server wrote is
-- nothing any more, also where it was loaded from disk: it may be old. Numbers stay below 2^53, so sums are exact.

local KEEP_MS, IDLE_S, MINUTE_S, BURST_S, LONGEST_WAIT_S = 600000, 120, 60, 10, 3600

local times = cmsgpack.unpack(ARGV[3])
local clock = redis.call("TIME")
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
if ARGV[5] ~= "" then now = tonumber(ARGV[5]) end
if ARGV[4] ~= "" and now > tonumber(ARGV[4]) then return cmsgpack.pack({late = now}) end

-- Members and time: {life, now, learned_at, told_at, refilled, next_inc, members, gone}
-- A member: {name, turn, share, seen_at, inc}. A gone one: {inc, until when its slots count}.

local function trunc(x) if x < 0 then return math.ceil(x) end return math.floor(x) end
local function div(a, b) return (a - a % b) / b end
local function burst(amount) if amount > 0 then return math.max(1, amount * BURST_S / MINUTE_S) end return 0 end

local life = ARGV[5] ~= "" and "test" or string.match(redis.call("INFO", "server"), "run_id:(%x+)")
local state = redis.call("GET", KEYS[1])
if state then state = cmsgpack.unpack(state) end
if not state or state.life ~= life then
  state = {life = life, now = now, learned_at = now + times.learn_s, told_at = now + math.min(times.learn_s, times.grace_s), refilled = 0, next_inc = 1, members = {}, gone = {}}
end

local function forget(at)
  local member = table.remove(state.members, at)
  state.gone[#state.gone + 1] = {member.inc, member.seen_at + times.lease_s + times.longest_s}
end

-- Refill time runs on; members that were silent for too long are forgotten.
now = math.max(now, state.now)
do
  local before = state.now
  local learned = math.min(math.max(state.learned_at, before), now)
  for _, member in ipairs(state.members) do
    local absent_at = member.seen_at + times.grace_s
    state.refilled = state.refilled + member.share * math.max(0, math.min(learned, absent_at) - before)
    state.refilled = state.refilled
      - member.share * math.max(0, math.min(now, member.seen_at + times.forget_s) - math.max(learned, absent_at))
  end
  state.refilled = state.refilled + (now - learned)
  state.now = now
  for at = #state.members, 1, -1 do
    if now - state.members[at].seen_at >= times.forget_s then forget(at) end
  end
  for at = #state.gone, 1, -1 do
    if now >= state.gone[at][2] then table.remove(state.gone, at) end
  end
end
local learning = now < state.learned_at

-- Accounts: {level, refilled, used, seeded, mark, at, holds, left}. A hold: {name, inc, used, held, floor, amount, marked, wants}.

local function fresh(level)
  return {life = life, level = level, refilled = state.refilled, used = 0, seeded = false, mark = 0, at = now, holds = {}, left = {}}
end

local function settle_forgotten(account)
  local live, gone = {}, {}
  for _, member in ipairs(state.members) do live[member.inc] = true end
  for _, one in ipairs(state.gone) do gone[one[1]] = one[2] end
  local kept, lost = {}, false
  for _, hold in ipairs(account.holds) do
    if live[hold.inc] then
      kept[#kept + 1] = hold
    else
      account.left[#account.left + 1] = {gone[hold.inc] or 0, math.max(hold.used, hold.held, hold.floor)}
      account.used = account.used + hold.used + hold.held
      if hold.held > 0 then
        account.mark, lost = math.abs(account.mark) + 1, true
      end
    end
  end
  account.holds = kept
  if lost then
    for _, hold in ipairs(kept) do hold.marked = hold.used end
  end
end

local function load(key)
  local account = redis.call("GET", key)
  if not account then return nil end
  account = cmsgpack.unpack(account)
  if account.life ~= life then return nil end
  settle_forgotten(account)
  local left = {}
  for _, one in ipairs(account.left) do
    if now < one[1] then left[#left + 1] = one end
  end
  account.left = left
  if #account.holds == 0 and #left == 0 and now - account.at >= IDLE_S then return nil end
  return account
end

local function save(key, account) redis.call("SET", key, cmsgpack.pack(account), "PX", KEEP_MS) end

local function least_amount(account)
  local least = account.holds[1].amount
  for _, hold in ipairs(account.holds) do least = math.min(least, hold.amount) end
  return least
end

local function sum(account, field)
  local found = 0
  for _, hold in ipairs(account.holds) do found = found + hold[field] end
  return found
end

-- An ask: {key, kind, amount, period, used, kept, need, want, largest, floor, wants, closing}
local KEY, KIND, AMOUNT, PERIOD, USED, KEPT, NEED, WANT, LARGEST, FLOOR, WANTS, CLOSING = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12

-- A grant: {key, period, granted, level, retry_s, floor, unseeded, mark}
local function grant(ask, period, granted, level, retry_s, floor, unseeded, mark)
  return {ask[KEY], period, granted, level, retry_s, floor, unseeded, mark}
end

local function bucket(account, hold, ask)
  local amount = least_amount(account)
  local rate, most = amount / MINUTE_S, burst(amount)
  local level = account.level + rate * math.max(0, state.refilled - account.refilled)
  local held = sum(account, "held")
  account.refilled = math.max(account.refilled, state.refilled)
  account.level = math.min(level, most - held)
  local free = math.max(0, trunc(account.level))
  local granted = math.min(ask[NEED], free)
  if amount > 0 and ask[LARGEST] > most and account.level >= most - held then
    granted = math.max(granted, math.min(ask[NEED], ask[LARGEST] - hold.held))
  elseif ask[NEED] <= free then
    granted = granted + math.min(ask[WANT], div(free - granted, 2 * #state.members))
  end
  account.level = account.level - granted
  hold.held = hold.held + granted
  local lacking, retry_s = ask[NEED] - granted, 0
  if lacking > 0 then
    retry_s = LONGEST_WAIT_S
    if rate > 0 then retry_s = math.min(LONGEST_WAIT_S, (lacking - math.min(0, account.level)) / rate) end
  end
  return grant(ask, "", granted, trunc(account.level), retry_s, 0, false, 0)
end

local function budget(account, hold, share, ask)
  if not account.seeded then return grant(ask, ask[PERIOD], 0, 0, 0, 0, not learning, 0) end
  local used = account.used + sum(account, "used") + sum(account, "held")
  local free = math.max(0, least_amount(account) - used)
  local granted = math.min(ask[NEED], free)
  if ask[NEED] <= free then granted = granted + math.min(ask[WANT], trunc((free - granted) * share / 2)) end
  hold.held = hold.held + granted
  return grant(ask, ask[PERIOD], granted, free - granted, 0, 0, false, math.max(0, account.mark))
end

-- quota/fair.py: {place in `wanted`, demand} in, what each gets out.
local function max_min(room, wanted)
  local given, left = {}, math.max(0, room)
  local waiting = {}
  for at, demand in ipairs(wanted) do waiting[at] = {at, demand} end
  table.sort(waiting, function(a, b) if a[2] == b[2] then return a[1] < b[1] end return a[2] < b[2] end)
  for i, one in ipairs(waiting) do
    local at, demand, others = one[1], one[2], #waiting - i + 1
    local part = demand
    if demand * others > left then part = -div(-left, others) end
    given[at] = math.max(0, math.min(part, demand))
    left = left - given[at]
  end
  return given
end

-- What the member would have if everybody gave back at once what others should have.
local function target(account, room, mine)
  local shares, floors, spare = {}, {}, room
  for _, member in ipairs(state.members) do shares[member.inc] = member.share end
  for at, hold in ipairs(account.holds) do
    floors[at] = math.min(trunc(hold.amount * shares[hold.inc] / 2), room)
    spare = spare - floors[at]
  end
  spare = math.max(0, spare)
  local targets, ranks, chosen = {}, 0, 0
  for at, hold in ipairs(account.holds) do
    targets[at] = floors[at]
    ranks = math.max(ranks, #hold.wants)
    if hold == mine then chosen = at end
  end
  for rank = 1, ranks do
    local wanted = {}
    for at, hold in ipairs(account.holds) do
      local total = 0
      for i = 1, math.min(rank, #hold.wants) do total = total + hold.wants[i] end
      wanted[at] = total - targets[at]
    end
    for at, extra in ipairs(max_min(spare, wanted)) do
      targets[at] = targets[at] + extra
      spare = spare - extra
    end
  end
  return targets[chosen] + div(spare, 2 * #account.holds)
end

local function slots(account, hold, share, ask)
  hold.used, hold.held, hold.floor, hold.wants, hold.amount = ask[USED], ask[KEPT], ask[FLOOR], ask[WANTS], ask[AMOUNT]
  local amount, left = least_amount(account), 0
  for _, one in ipairs(account.left) do left = left + one[2] end
  local room = amount - left
  for _, one in ipairs(account.holds) do
    if one ~= hold then room = room - math.max(one.used, one.held, one.floor) end
  end
  local floor = math.max(0, math.min(trunc(amount * share / 2), room))
  local most = learning and ask[KEPT] or room
  local granted = math.max(floor, math.min(target(account, amount - left, hold), room, most))
  hold.held, hold.floor = math.max(ask[KEPT], granted), math.max(ask[FLOOR], floor)
  return grant(ask, "", granted, math.max(0, room - granted), 0, floor, false, 0)
end

local function remove(account, hold)
  for at, one in ipairs(account.holds) do
    if one == hold then
      table.remove(account.holds, at)
      return
    end
  end
end

local function answer(member, share, ask, key)
  local account = load(key)
  if not account then
    if ask[CLOSING] then return nil end
    local full = not learning and ask[KIND] == "bucket"
    account = fresh(full and burst(ask[AMOUNT]) or 0)
  end
  account.at = now
  local hold
  for _, one in ipairs(account.holds) do
    if one.inc == member.inc then hold = one end
  end
  if not hold then
    if ask[CLOSING] then
      save(key, account)
      return nil
    end
    hold = {
      name = member.name, inc = member.inc, used = ask[USED], held = ask[KEPT], floor = ask[FLOOR], amount = ask[AMOUNT],
      marked = ask[USED], wants = ask[WANTS],
    }
    account.holds[#account.holds + 1] = hold
  end
  local given
  if ask[KIND] == "slots" then
    if ask[CLOSING] then remove(account, hold) else given = slots(account, hold, share, ask) end
  else
    account.level = account.level + (hold.held - math.max(0, ask[USED] - hold.used) - ask[KEPT])
    hold.used, hold.held, hold.amount = math.max(hold.used, ask[USED]), ask[KEPT], ask[AMOUNT]
    if ask[KIND] == "bucket" then
      given = bucket(account, hold, ask)
    else
      given = budget(account, hold, share, ask)
    end
    if ask[CLOSING] then
      account.used = account.used + hold.used + hold.held
      remove(account, hold)
    end
  end
  save(key, account)
  return given
end

local function report(said)
  local member, place
  for at, one in ipairs(state.members) do
    if one.name == said.member then member, place = one, at end
  end
  if not member then
    member = {name = said.member, turn = 0, share = 0, seen_at = now, inc = state.next_inc}
    state.next_inc = state.next_inc + 1
    place = #state.members + 1
    state.members[place] = member
  end
  local reply = {turn = said.turn, share = member.share, members = #state.members, learning = learning, grants = {}}
  if said.turn <= member.turn then return reply end
  member.turn, member.seen_at = said.turn, now
  local others = 0
  for _, one in ipairs(state.members) do
    if one ~= member then others = others + one.share end
  end
  reply.share = math.min(1 / #state.members, math.max(0, 1 - others))
  if now < state.told_at and said.share == 0 then reply.share = 0 end
  member.share = math.max(said.share, reply.share)
  for at, ask in ipairs(said.asks) do
    local given = answer(member, reply.share, ask, KEYS[at + 1])
    if given then reply.grants[#reply.grants + 1] = given end
  end
  if said.leaving then forget(place) end
  reply.members = #state.members
  return reply
end

-- A seed: {key, period, used, mark}
local function sow(seed, key)
  local account = load(key) or fresh(0)
  local others = math.max(0, seed[3] - sum(account, "marked"))
  if not account.seeded then
    account.used = math.max(account.used, others)
  elseif seed[4] > 0 and seed[4] == account.mark then
    account.used = others
    account.mark = -account.mark
  end
  account.seeded, account.at = true, now
  save(key, account)
end

local said, told = cmsgpack.unpack(ARGV[2]), nil
if ARGV[1] == "report" then
  told = report(said)
else
  for at, seed in ipairs(said) do sow(seed, KEYS[at + 1]) end
end
redis.call("SET", KEYS[1], cmsgpack.pack(state))
if not told then return "" end
told.now = now
return cmsgpack.pack(told)
