// The product for rows of one type, see products.c.
// `columns` columns of rows: out = alpha sums + bias + factor other, and its relu; bias and other may be null.
static inline void OF(finish)(const float *restrict from, const TYPE *bias, const TYPE *other, TYPE *out, long rows,
                              long columns, long other_stride, long out_stride, float alpha, float factor, long relu) {
    for (long row = 0; row < rows; row++, from += PANEL, out += out_stride) {
        const TYPE *own = other ? other + row * other_stride : 0;
        FOR_CHANNELS(columns) {
            const float added = (bias ? LOAD(bias[c]) : 0) + (own ? factor * LOAD(own[c]) : 0);
            const float value = alpha * from[c] + added;
            out[c] = STORE(relu && value < 0 ? 0 : value);
        }
    }
}

// out (rows, columns) = alpha x (rows, inner) w + bias + factor other, and its relu; w is in panels of PANEL columns. Rows of
// x, other and out lie so many values apart; other may be out.
void OF(panel_product)(const TYPE *x, const float *panels, const TYPE *bias, const TYPE *other, TYPE *out, long rows,
                       long inner, long columns, long x_stride, long other_stride, long out_stride, long relu,
                       float alpha, float factor, long threads) {
    const long pack = 4 / (long)sizeof(TYPE), depth = inner / pack, stride = x_stride / pack;
    const long size = group_size(rows, GROUP, threads), last = (depth - 1) / DEPTH * DEPTH;
    _Pragma("omp parallel for schedule(static) num_threads(threads)")
    for (long first = 0; first < rows; first += size) {
        const long count = rows - first < size ? rows - first : size;
        const float *own = (const float *)(x + first * x_stride);
        for (long begin = 0; begin < columns; begin += PANEL) {
            const float *panel = panels + begin * depth;
            const long width = columns - begin < PANEL ? columns - begin : PANEL;
            for (long k = 0; k < last; k += DEPTH)
                OF(multiply)(count, DEPTH, own + k, stride, panel + k * PANEL, sums, k);
            for (long row = 0; row < count; row += ROWS) {
                const long some = count - row < ROWS ? count - row : ROWS, place = first + row;
                float *to = last ? sums + row * PANEL : sums;  // the latter stays in the first cache
                OF(multiply)(some, depth - last, own + row * stride + last, stride, panel + last * PANEL, to, last);
                OF(finish)(to, bias ? bias + begin : 0, other ? other + place * other_stride + begin : 0,
                           out + place * out_stride + begin, some, width, other_stride, out_stride, alpha, factor, relu);
            }
        }
    }
}

// Put matrices (inner, columns), or the transposes of (columns, inner), into panels: of each of PANEL columns those of
// all matrices, (inner, PANEL) with zeros beyond the last column, where what belongs to one value lies together.
void OF(panels)(const TYPE *restrict weight, TYPE *restrict out, long matrices, long inner, long columns, long plane,
                long stride, long transposed, long threads) {
    const long pack = 4 / (long)sizeof(TYPE), row_step = transposed ? 1 : stride, step = transposed ? stride : 1;
    FOR_ROWS((columns + PANEL - 1) / PANEL * matrices) {
        const long begin = row / matrices * PANEL, count = columns - begin < PANEL ? columns - begin : PANEL;
        const TYPE *own = weight + row % matrices * plane + begin * step;
        TYPE *panel = out + row * inner * PANEL;
        if (count < PANEL) memset(panel, 0, sizeof(TYPE) * inner * PANEL);
        for (long first = 0; first < inner; first += BLOCK) {
            const long last = first + BLOCK < inner ? first + BLOCK : inner;
            if (!transposed && pack == 1)
                for (long k = first; k < last; k++) memcpy(panel + k * PANEL, own + k * stride, sizeof(TYPE) * count);
            else
                for (long c = 0; c < count; c++)
                    for (long k = first; k < last; k++)
                        panel[(k / pack * PANEL + c) * pack + k % pack] = own[k * row_step + c * step];
        }
    }
}

#undef KIND
#undef TYPE
