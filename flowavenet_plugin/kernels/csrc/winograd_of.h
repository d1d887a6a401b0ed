// The convolution of rows of one type, see winograd.c.
// x = B' d of `count` rows of tiles from `first` on; planes lie `plane` values apart.
static void OF(transform)(const TYPE *restrict h, TYPE *restrict x, long first, long count, long plane, long dilation,
                          long width) {
    const long step = dilation * width;
    for (long t = 0; t < count; t++) {
        const TYPE *restrict d = h + first_row(first + t, dilation) * width;
        TYPE *restrict out = x + t * width;
        FOR_CHANNELS(width) {
            const float d0 = LOAD(d[c]), d1 = LOAD(d[c + step]), d2 = LOAD(d[c + 2 * step]);
            const float d3 = LOAD(d[c + 3 * step]), d4 = LOAD(d[c + 4 * step]), d5 = LOAD(d[c + 5 * step]);
            const float d6 = LOAD(d[c + 6 * step]), d7 = LOAD(d[c + 7 * step]);
            const float even1 = d2 + d6 - 4.25f * d4, odd1 = d1 + d5 - 4.25f * d3;
            const float even2 = d6 + 0.25f * d2 - 1.25f * d4, odd2 = 0.5f * d1 - 2.5f * d3 + 2 * d5;
            const float even3 = d6 + 4 * d2 - 5 * d4, odd3 = 2 * d1 - 2.5f * d3 + 0.5f * d5;
            out[c] = STORE(d0 - d6 + 5.25f * (d4 - d2));
            out[c + plane] = STORE(even1 + odd1);
            out[c + 2 * plane] = STORE(even1 - odd1);
            out[c + 3 * plane] = STORE(even2 + odd2);
            out[c + 4 * plane] = STORE(even2 - odd2);
            out[c + 5 * plane] = STORE(even3 + odd3);
            out[c + 6 * plane] = STORE(even3 - odd3);
            out[c + 7 * plane] = STORE(d7 - d1 + 5.25f * (d3 - d5));
        }
    }
}

// The gate of `count` channels of a tile, of its products y; see winograd_convolve.
static inline void OF(gate_tile)(const float *restrict y, TYPE *restrict pre, const TYPE *restrict bias,
                                 TYPE *restrict gate, long place, long rows, long dilation, long width, long count,
                                 long keep) {
    float sums[TILE][PANEL];
    FOR_CHANNELS(PANEL) {
        const float y1 = y[c + Y_PLANE], y2 = y[c + 2 * Y_PLANE], y3 = y[c + 3 * Y_PLANE];
        const float y4 = y[c + 4 * Y_PLANE], y5 = y[c + 5 * Y_PLANE], y6 = y[c + 6 * Y_PLANE];
        const float even1 = y1 + y2, odd1 = y1 - y2, even2 = y3 + y4, odd2 = y3 - y4, even3 = y5 + y6, odd3 = y5 - y6;
        sums[0][c] = y[c] + even1 + even2 + even3;
        sums[1][c] = odd1 + 2 * odd2 + 0.5f * odd3;
        sums[2][c] = even1 + 4 * even2 + 0.25f * even3;
        sums[3][c] = odd1 + 8 * odd2 + 0.125f * odd3;
        sums[4][c] = even1 + 16 * even2 + 0.0625f * even3;
        sums[5][c] = odd1 + 32 * odd2 + 0.03125f * odd3 + y[c + 7 * Y_PLANE];
    }
    for (int i = 0; i < TILE && place < rows; i++, place += dilation) {
        float *restrict a = sums[i], *restrict b = sums[i] + HALF;
        TYPE *restrict base = pre + place * 2 * width, *restrict out = gate + place * width;
        FOR_CHANNELS(count) {
            a[c] = sigmoid(a[c] + LOAD(bias[c]) + LOAD(base[c]));
            b[c] = sigmoid(b[c] + LOAD(bias[c + width]) + LOAD(base[c + width]));
            out[c] = STORE(b[c] - 2 * a[c] * b[c]);
        }
        if (!keep) continue;
        FOR_CHANNELS(count) {
            base[c] = STORE(a[c]);
            base[c + width] = STORE(b[c]);
        }
    }
}

// gate = b - 2 a b, of a, b = sigmoid of the two halves of bias + pre + convolution of h, for the first `rows` rows; with
// `keep` the sigmoids take the place of pre. Weights are panels from gate_panels; `room` is for `threads` threads.
void OF(winograd_convolve)(const TYPE *restrict h, const float *restrict panels, TYPE *restrict pre,
                           const TYPE *restrict bias, TYPE *restrict gate, float *restrict room, long rows, long tiles,
                           long dilation, long inner, long width, long keep, long threads) {
    const long depth = inner * (long)sizeof(TYPE) / 4, total = tiles * dilation;
    const long size = group_size(total, GROUP, threads);
    _Pragma("omp parallel for schedule(static, 1) num_threads(threads)")
    for (long thread = 0; thread < threads; thread++) {
        float *x = room + thread * PLANES * GROUP * (depth + PANEL), *y = x + PLANES * GROUP * depth;
        for (long first = thread * size; first < total; first += threads * size) {
            const long count = total - first < size ? total - first : size;
            const float *own = panels;
            OF(transform)(h, (TYPE *)x, first, count, GROUP * inner, dilation, inner);
            for (long begin = 0; begin < width; begin += HALF) {
                for (int p = 0; p < PLANES; p++, own += depth * PANEL)
                    OF(multiply)(count, depth, x + p * GROUP * depth, depth, own, y + p * Y_PLANE, 0);
                const long channels = width - begin < HALF ? width - begin : HALF;
                for (long t = 0; t < count; t++)
                    OF(gate_tile)(y + t * PANEL, pre + begin, bias + begin, gate + begin,
                                  first_row(first + t, dilation), rows, dilation, width, channels, keep);
            }
        }
    }
}

// Put weights, planes of (2 width, inner), into panels: of each of HALF filters and their gates, all planes of
// (inner, PANEL), where what two bfloat16 summands need lies beside each other.
void OF(gate_panels)(const float *restrict weight, TYPE *restrict out, long inner, long width, long threads) {
    const long count = (width + HALF - 1) / HALF, pack = 4 / (long)sizeof(TYPE);
    FOR_ROWS(count * PLANES) {
        const long begin = row / PLANES * HALF, plane = row % PLANES;
        TYPE *restrict panel = out + row * inner * PANEL;
        for (long first = 0; first < inner; first += BLOCK) {
            const long last = first + BLOCK < inner ? first + BLOCK : inner;
            for (long column = 0; column < PANEL; column++) {
                const long channel = begin + column % HALF;
                const float *own = weight + ((plane * 2 + column / HALF) * width + channel) * inner;
                for (long k = first; k < last; k++)
                    panel[(k / pack * PANEL + column) * pack + k % pack] = channel < width ? STORE(own[k]) : 0;
            }
        }
    }
}

#undef KIND
#undef TYPE
