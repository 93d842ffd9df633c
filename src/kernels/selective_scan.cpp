#include "kernels/selective_scan.h"

#include "kernels/simd.h"
#include "kernels/small_products.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// Channels are lanes; a pass over the tokens keeps some states of one vector of channels in registers.
constexpr int kStates = kLanes == 8 ? 8 : 16;         // forward
constexpr int kBackwardStates = kLanes == 8 ? 4 : 8;  // backward, which keeps their gradients as well
constexpr int64_t kSegment = 8;                       // backward: tokens from one kept state to the next
constexpr int64_t kGroup = 8;                         // backward: vectors of channels that share their sums for B and C
constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;

// One vector of channels, and a run of states.
struct Part {
  int64_t channel, lanes, state;
};

// to [count, kLanes] = a row for each state of the part, from [channels, states], times `scale`; nullptr: zeros.
SENNIT_INLINE void load_states(const SelectiveScanTask& t, const Part& part, int64_t count, const float* from,
                               float scale, float* to) {
  if (!from || part.lanes < kLanes) copy(nullptr, to, count * kLanes);
  if (!from) return;
  transpose(from + part.channel * t.states + part.state, t.states, part.lanes, count, to, kLanes);
  for (int64_t n = 0; n < count && scale != 1; ++n) store(to + n * kLanes, load(to + n * kLanes) * set(scale));
}

// What the sums of y begin with, before a part's states are added in order, even and odd ones by themselves.
SENNIT_INLINE vf sum_so_far(const SelectiveScanTask& t, const Part& part, vf x, const float* y) {
  if (part.state > 0) return load_n(y, part.lanes);
  const vf skip = t.d ? load_n(t.d + part.channel, part.lanes) : zero();
  return skip * x;
}

template <int N>
SENNIT_INLINE void scan(const SelectiveScanTask& t, const Part& part, const float* a, float* h, float* y,
                        int64_t y_stride) {
  vf s[N];
  for (int n = 0; n < N; ++n) s[n] = load(h + n * kLanes);
  for (int64_t i = 0; i < t.length; ++i) {
    const float *b = t.b + i * t.b_stride + part.state, *c = t.c + i * t.c_stride + part.state;
    float* to = y + i * y_stride + part.channel;
    const vf x = load_n(t.x + i * t.x_stride + part.channel, part.lanes);
    const vf dt = load_n(t.dt + i * t.dt_stride + part.channel, part.lanes), u = dt * x;
    vf out[2] = {sum_so_far(t, part, x, to), zero()};
    for (int n = 0; n < N; ++n) {
      s[n] = fma(exp2(dt * load(a + n * kLanes)), s[n], u * set(b[n]));
      out[n % 2] = fma(set(c[n]), s[n], out[n % 2]);
    }
    store_n(to, out[0] + out[1], part.lanes);
  }
  for (int n = 0; n < N; ++n) store(h + n * kLanes, s[n]);
}

template <int N>
void scan_part(const SelectiveScanTask& t, const Part& part, const float* h0, float* h_end, float* y, int64_t y_stride,
               float* scratch) {
  float *a = scratch, *h = scratch + N * kLanes;
  load_states(t, part, N, t.a, kLog2E, a);
  load_states(t, part, N, h0, 1, h);
  scan<N>(t, part, a, h, y, y_stride);
  if (h_end) transpose(h, kLanes, N, part.lanes, h_end + part.channel * t.states + part.state, t.states);
}

// One token of a square of channels and states. The states stay as they lie, a channel in a row, and only what y sums
// is transposed; each number goes the way that scan() takes.
SENNIT_INLINE void step_square(const SelectiveScanTask& t, const Part& part, const float* h0, float* h_end, float* y) {
  const vf b = load(t.b + part.state);
  vf s[kLanes];
#pragma GCC unroll 16
  for (int l = 0; l < kLanes; ++l) {
    const int64_t channel = part.channel + l, at = channel * t.states + part.state;
    const vf dt = set(t.dt[channel]), u = dt * set(t.x[channel]);
    s[l] = fma(exp2(dt * (load(t.a + at) * set(kLog2E))), h0 ? load(h0 + at) : zero(), u * b);
    if (h_end) store(h_end + at, s[l]);
  }
  transpose_square(s);
  y += part.channel;
  vf out[2] = {sum_so_far(t, part, load(t.x + part.channel), y), zero()};
#pragma GCC unroll 16
  for (int n = 0; n < kLanes; ++n) out[n % 2] = fma(set(t.c[part.state + n]), s[n], out[n % 2]);
  store(y, out[0] + out[1]);
}

void forward(const SelectiveScanTask& t, const float* h0, float* h_end, float* y, int64_t y_stride, float* scratch) {
  Scratch pieces(scratch);
  float* work = pieces.take(2 * kStates * kLanes);
  for (int64_t channel = t.begin; channel < t.end; channel += kLanes) {
    Part part{channel, t.end - channel < kLanes ? t.end - channel : kLanes, 0};
    const bool square = t.length == 1 && kStates == kLanes && part.lanes == kLanes;
    for (; square && part.state + kLanes <= t.states; part.state += kLanes) step_square(t, part, h0, h_end, y);
    for (; part.state + kStates <= t.states; part.state += kStates)
      scan_part<kStates>(t, part, h0, h_end, y, y_stride, work);
    for (; part.state + 4 <= t.states; part.state += 4) scan_part<4>(t, part, h0, h_end, y, y_stride, work);
    for (; part.state < t.states; ++part.state) scan_part<1>(t, part, h0, h_end, y, y_stride, work);
  }
}

// Buffers of the backward pass; N stands for kBackwardStates, L for kLanes.
struct Backward {
  float* a;       // [kGroup, N, L] A log2(e)
  float* dh;      // [kGroup, N, L]
  float* da;      // [kGroup, N, L]
  float* starts;  // [segments, kGroup, N, L] the states before each segment
  float* h;       // [kSegment, N, L] the states after each token of a segment
  float* decays;  // [kSegment, N, L]
  float* db;      // [kSegment, N, L] summed over the group's vectors
  float* dc;      // [kSegment, N, L]
  SENNIT_INLINE Backward(const SelectiveScanTask& t, Scratch& pieces) {
    constexpr int64_t block = kBackwardStates * kLanes;
    for (float** p : {&a, &dh, &da}) *p = pieces.take(kGroup * block);
    starts = pieces.take((t.length + kSegment - 1) / kSegment * kGroup * block);
    for (float** p : {&h, &decays, &db, &dc}) *p = pieces.take(kSegment * block);
  }
};

struct Segment {
  int64_t first, n;
};

// Through a segment from the states h0 [N, L]: those after it go to `end`, or, if Keep, those after each token to h and
// the decays before them to `decays`, both [n, N, L].
template <int N, bool Keep>
SENNIT_INLINE void replay(const SelectiveScanTask& t, const Part& part, Segment segment, const float* a,
                          const float* h0, float* end, float* h, float* decays) {
  vf s[N];
  for (int n = 0; n < N; ++n) s[n] = load(h0 + n * kLanes);
  for (int64_t i = 0; i < segment.n; ++i) {
    const int64_t token = segment.first + i;
    const vf dt = load_n(t.dt + token * t.dt_stride + part.channel, part.lanes);
    const vf u = dt * load_n(t.x + token * t.x_stride + part.channel, part.lanes);
    for (int n = 0; n < N; ++n) {
      const vf e = exp2(dt * load(a + n * kLanes));
      s[n] = fma(e, s[n], u * set(t.b[token * t.b_stride + part.state + n]));
      if (!Keep) continue;
      store(decays + (i * N + n) * kLanes, e);
      store(h + (i * N + n) * kLanes, s[n]);
    }
  }
  for (int n = 0; n < N && !Keep; ++n) store(end + n * kLanes, s[n]);
}

// From the last token of a segment to its first, with the states of replay(): dh [N, L] goes from the state after it to
// the state before it. The first part of the states takes what skips them along: dx += D dy, dD += sum dy x.
template <int N>
SENNIT_INLINE void reverse(const SelectiveScanTask& t, const Part& part, Segment segment, const Backward& w,
                           const float* a, const float* start, const float* dy, int64_t dy_stride, float* dh, float* da,
                           const SelectiveScanGradient& to) {
  vf ds[N], dlog[N];
  for (int n = 0; n < N; ++n) ds[n] = load(dh + n * kLanes), dlog[n] = load(da + n * kLanes);
  const bool skips = t.d && part.state == 0;
  const vf skip = skips ? load_n(t.d + part.channel, part.lanes) : zero();
  vf dskip = zero();
  const Sum dx{to.dx.at, to.dx.holds || part.state > 0}, ddt_sum{to.ddt.at, to.ddt.holds || part.state > 0};
  for (int64_t i = segment.n - 1; i >= 0; --i) {
    const int64_t token = segment.first + i;
    const float *b = t.b + token * t.b_stride + part.state, *c = t.c + token * t.c_stride + part.state;
    const vf g = load_n(dy + token * dy_stride + part.channel, part.lanes);
    const vf x = load_n(t.x + token * t.x_stride + part.channel, part.lanes);
    const vf dt = load_n(t.dt + token * t.dt_stride + part.channel, part.lanes), u = dt * x;
    const float* before = i ? w.h + (i - 1) * N * kLanes : start;
    vf du = zero(), ddt = zero();
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      const int64_t at = (i * N + n) * kLanes;
      store(w.dc + at, fma(g, load(w.h + at), load(w.dc + at)));
      const vf d = fma(set(c[n]), g, ds[n]);
      store(w.db + at, fma(d, u, load(w.db + at)));
      du = fma(d, set(b[n]), du);
      ds[n] = d * load(w.decays + at);
      const vf path = ds[n] * load(before + n * kLanes);  // gradient of the exponent dt A
      ddt = fma(path, load(a + n * kLanes), ddt);
      dlog[n] = fma(path, dt, dlog[n]);
    }
    dskip = fma(g, x, dskip);
    add_lanes(dx, token * t.x_stride + part.channel, fma(skip, g, dt * du), part.lanes);
    add_lanes(ddt_sum, token * t.dt_stride + part.channel, fma(x, du, ddt * set(kLn2)), part.lanes);
  }
  for (int n = 0; n < N; ++n) store(dh + n * kLanes, ds[n]), store(da + n * kLanes, dlog[n]);
  if (skips && to.dd) add_n(to.dd + part.channel, dskip, part.lanes);
}

// to [channels, states] += from [count, kLanes] for the part
SENNIT_INLINE void add_states(const SelectiveScanTask& t, const Part& part, int64_t count, const float* from,
                              float* to) {
  for (int64_t c = 0; c < part.lanes; ++c)
    for (int64_t n = 0; n < count; ++n) to[(part.channel + c) * t.states + part.state + n] += from[n * kLanes + c];
}

// A group's channels [channel, end) with N states from `state`.
template <int N>
void backward_group(const SelectiveScanTask& t, int64_t channel, int64_t end, int64_t state, const float* h0,
                    const float* dy, int64_t dy_stride, const float* dh_end, const SelectiveScanGradient& to,
                    const Backward& w) {
  constexpr int64_t block = N * kLanes;
  const int64_t segments = (t.length + kSegment - 1) / kSegment;
  auto for_parts = [&](auto&& body) {
    int64_t at = 0;
    for (int64_t c = channel; c < end; c += kLanes, at += block)
      body(Part{c, end - c < kLanes ? end - c : kLanes, state}, at);
  };
  auto segment_at = [&](int64_t s) {
    const int64_t first = s * kSegment;
    return Segment{first, t.length - first < kSegment ? t.length - first : kSegment};
  };
  for_parts([&](const Part& part, int64_t at) {
    load_states(t, part, N, t.a, kLog2E, w.a + at);
    load_states(t, part, N, dh_end, 1, w.dh + at);
    load_states(t, part, N, nullptr, 1, w.da + at);
    if (segments) load_states(t, part, N, h0, 1, w.starts + at);
    for (int64_t s = 0; s + 1 < segments; ++s) {
      const int64_t from = s * kGroup * block + at;
      replay<N, false>(t, part, segment_at(s), w.a + at, w.starts + from, w.starts + from + kGroup * block, nullptr,
                       nullptr);
    }
  });
  for (int64_t s = segments - 1; s >= 0; --s) {
    const Segment segment = segment_at(s);
    copy(nullptr, w.db, segment.n * block);
    copy(nullptr, w.dc, segment.n * block);
    for_parts([&](const Part& part, int64_t at) {
      const float* start = w.starts + s * kGroup * block + at;
      replay<N, true>(t, part, segment, w.a + at, start, nullptr, w.h, w.decays);
      reverse<N>(t, part, segment, w, w.a + at, start, dy, dy_stride, w.dh + at, w.da + at, to);
    });
    for (int64_t i = 0; i < segment.n; ++i)
      for (int64_t n = 0; n < N; ++n) {
        to.db[(segment.first + i) * t.b_stride + state + n] += sum(load(w.db + (i * N + n) * kLanes));
        to.dc[(segment.first + i) * t.c_stride + state + n] += sum(load(w.dc + (i * N + n) * kLanes));
      }
  }
  for_parts([&](const Part& part, int64_t at) {
    add_states(t, part, N, w.da + at, to.da);
    if (to.dh0) add_states(t, part, N, w.dh + at, to.dh0);
  });
}

void backward(const SelectiveScanTask& t, const float* h0, const float* dy, int64_t dy_stride, const float* dh_end,
              const SelectiveScanGradient& to, float* scratch) {
  Scratch pieces(scratch);
  const Backward w(t, pieces);
  for (int64_t channel = t.begin; channel < t.end; channel += kGroup * kLanes) {
    const int64_t end = t.end < channel + kGroup * kLanes ? t.end : channel + kGroup * kLanes;
    int64_t n = 0;
    for (; n + kBackwardStates <= t.states; n += kBackwardStates)
      backward_group<kBackwardStates>(t, channel, end, n, h0, dy, dy_stride, dh_end, to, w);
    for (; n < t.states; ++n) backward_group<1>(t, channel, end, n, h0, dy, dy_stride, dh_end, to, w);
  }
}

int64_t scratch_floats(const SelectiveScanTask&) {
  Scratch pieces(nullptr);
  pieces.take(2 * kStates * kLanes);
  return pieces.needed();
}

int64_t backward_scratch_floats(const SelectiveScanTask& t) {
  Scratch pieces(nullptr);
  Backward(t, pieces);
  return pieces.needed();
}

}  // namespace

const SelectiveScan selective_scan_table = {
    .scratch_floats = scratch_floats,
    .backward_scratch_floats = backward_scratch_floats,
    .forward = forward,
    .backward = backward,
};

}  // namespace sennit::kernels::SENNIT_LEVEL
