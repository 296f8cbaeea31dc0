/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM ksm_offload

#if !defined(_TRACE_KSM_OFFLOAD_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KSM_OFFLOAD_H

#include <linux/tracepoint.h>

TRACE_EVENT(ksm_offload_job,
	    TP_PROTO(int op, unsigned int nr, unsigned int errors, u64 ns),

	    TP_ARGS(op, nr, errors, ns),

	    TP_STRUCT__entry(__field(int, op)
			     __field(unsigned int, nr)
			     __field(unsigned int, errors)
			     __field(u64, ns)),

	    TP_fast_assign(__entry->op = op;
			   __entry->nr = nr;
			   __entry->errors = errors;
			   __entry->ns = ns;),

	    TP_printk("op=%s requests=%u errors=%u ns=%llu",
		      __print_symbolic(__entry->op, { 0, "compare" },
				       { 1, "checksum" }),
		      __entry->nr, __entry->errors, __entry->ns)
);

TRACE_EVENT(ksm_offload_batch,
	    TP_PROTO(unsigned int nr, unsigned int matches,
		     unsigned int inserts, unsigned int singles),

	    TP_ARGS(nr, matches, inserts, singles),

	    TP_STRUCT__entry(__field(unsigned int, nr)
			     __field(unsigned int, matches)
			     __field(unsigned int, inserts)
			     __field(unsigned int, singles)),

	    TP_fast_assign(__entry->nr = nr;
			   __entry->matches = matches;
			   __entry->inserts = inserts;
			   __entry->singles = singles;),

	    TP_printk("pages=%u matches=%u inserts=%u singles=%u", __entry->nr,
		      __entry->matches, __entry->inserts, __entry->singles)
);

#endif /* _TRACE_KSM_OFFLOAD_H */

/* This part must be outside of the include guard. */
#include <trace/define_trace.h>
